// The LSTM recurrence on a CPU: all steps of one layer in one call, forward and backward.
//
//   items      a recurrence and a block of its batch rows; threads take one after the other
//   forward    per step: h x kernel in registers, gates, cell; activations replace the gate inputs
//   backward   per step: gate gradients replace the activations, then gate gradients x kernel^T
//
// With `bfloat16` what enters the products is rounded to it: h and gate gradients here, the kernel
// by the caller. They are multiplied in float32: on the Intel processors with AVX512-BF16 its
// instruction does half as many operations per cycle as a float32 product.
//
// Rows are independent, so threads meet at the start and at the end only. The kernel is packed once
// per call so that the innermost loop reads it in order. Compiled at run time for the processor it
// runs on (native.py); vectors are GCC's, of 16 lanes with AVX-512 and of 8 with AVX2.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

#ifdef __AVX512F__
constexpr int kLanes = 16, kRows = 6;
#else
constexpr int kLanes = 8, kRows = 3;  // sixteen registers: 3 rows x 4 vectors, 4 loads
#endif
constexpr int kGates = 4;
// Batch rows of an item at most: their h and gates stay in the second-level cache.
constexpr int64_t kMostRows = 96;

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t Int __attribute__((vector_size(kLanes * 4)));
typedef float Loose __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }
inline Vec all(float x) { return x - Vec{}; }
inline Vec clip(Vec x, float low, float high) {
  x = x < low ? all(low) : x;
  return x > high ? all(high) : x;
}

// e^x, relative error below 2e-7: 2^n times a polynomial on |r| <= ln(2) / 2.
inline Vec exponential(Vec x) {
  x = clip(x, -87.0f, 88.0f);
  const Vec shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  Vec shifted = x * 1.44269504f + shift;
  Vec n = shifted - shift;
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  Int bits = __builtin_convertvector(n, Int) << 23;
  return (Vec)((Int)p + bits);
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }

// A rational minimax approximation, as Eigen and XLA use it; exact near 0.
inline Vec tanh_of(Vec x) {
  x = clip(x, -7.99881172f, 7.99881172f);
  Vec s = x * x;
  Vec p = all(-2.76076847742355e-16f);
  p = p * s + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  Vec q = all(1.19825839466702e-06f);
  q = q * s + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  return x * p / q;
}

// Rounds to the nearest bfloat16, ties to even; NaN stays NaN.
inline Vec to_bfloat16(Vec x) {
  const Int bits = (Int)x;
  const Vec rounded = (Vec)((bits + 0x7fff + ((bits >> 16) & 1)) & (int32_t)0xffff0000);
  return x == x ? rounded : x;
}

// Adds a [R, depth] x panel [depth, V * kLanes] to sums.
template <int R, int V>
inline __attribute__((always_inline)) void multiply(const float* a, int64_t stride,
                                                    const float* panel, int64_t depth,
                                                    Vec (&sums)[R][V]) {
  for (int64_t k = 0; k < depth; ++k) {
    Vec w[V];
    for (int v = 0; v < V; ++v) w[v] = load(panel + (k * V + v) * kLanes);
    for (int r = 0; r < R; ++r) {
      Vec x = all(a[r * stride + k]);
      for (int v = 0; v < V; ++v) sums[r][v] += x * w[v];
    }
  }
}

// Calls f(std::integral_constant<int, R>, first row) for groups of at most kRows rows.
template <typename F>
inline __attribute__((always_inline)) void by_rows(int64_t rows, F&& f) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) f(std::integral_constant<int, kRows>{}, row);
  switch (rows - row) {
    case 1: f(std::integral_constant<int, 1>{}, row); break;
    case 2: f(std::integral_constant<int, 2>{}, row); break;
    case 3: f(std::integral_constant<int, std::min(3, kRows)>{}, row); break;
    case 4: f(std::integral_constant<int, std::min(4, kRows)>{}, row); break;
    case 5: f(std::integral_constant<int, std::min(5, kRows)>{}, row); break;
    default: break;
  }
}

// Runs work(0) .. work(count - 1) on the caller and on idle threads of the pool. The caller takes
// items, too, and waits only for items that have begun: calls on a busy pool cannot deadlock.
template <typename F>
void run_items(ffi::ThreadPool& pool, int64_t count, F work) {
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0, count;
    std::mutex mutex;
    std::condition_variable finished;
    F work;
    Shared(F f, int64_t n) : count(n), work(std::move(f)) {}
    void take() {
      int64_t mine = 0;
      for (int64_t i; (i = next.fetch_add(1)) < count; ++mine) work(i);
      if (mine == 0) return;
      std::lock_guard<std::mutex> lock(mutex);
      done += mine;
      if (done == count) finished.notify_all();
    }
  };
  auto shared = std::make_shared<Shared>(std::move(work), count);
  int64_t helpers = std::min<int64_t>(count, pool.num_threads()) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([shared] { shared->take(); });
  shared->take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == shared->count; });
}

struct Shape {
  int64_t N, T, B, H;
};

// Blocks of rows, at least one per thread, of nearly equal size.
int64_t block_count(const Shape& s, int64_t threads) {
  int64_t blocks = (s.B + kMostRows - 1) / kMostRows;
  while ((s.N * blocks) % threads != 0 && blocks * kRows * 2 <= s.B) ++blocks;
  return blocks;
}

// kernel [H, 4H] -> [H / kLanes, H, 4, kLanes]: the four gates of kLanes units side by side.
void pack_gates(const float* kernel, int64_t H, float* packed) {
  for (int64_t u = 0; u < H; u += kLanes)
    for (int64_t k = 0; k < H; ++k)
      for (int g = 0; g < kGates; ++g, packed += kLanes)
        std::memcpy(packed, kernel + k * kGates * H + g * H + u, kLanes * 4);
}

// kernel [H, 4H] -> transposed panels of kGates vectors (the last may be narrower):
// [H / width, 4H, width].
void pack_transposed(const float* kernel, int64_t H, float* packed) {
  const int64_t G = kGates * H;
  for (int64_t u = 0; u < H; u += kGates * kLanes) {
    const int64_t width = std::min<int64_t>(kGates * kLanes, H - u);
    for (int64_t g = 0; g < G; ++g)
      for (int64_t j = 0; j < width; ++j) *packed++ = kernel[(u + j) * G + g];
  }
}

// Packed kernels, not initialised. Aligned: a vector that crosses a cache line is read twice.
struct Packed {
  static constexpr std::align_val_t kLine{64};
  float* data;
  explicit Packed(int64_t size) : data(static_cast<float*>(operator new(size * 4, kLine))) {}
  ~Packed() { operator delete(data, kLine); }
  Packed(const Packed&) = delete;
};

struct Forward {
  Shape s;
  const float* inputs;  // [N, T, B, 4H], may be `active` itself; null: none
  const float* constant;
  int64_t constant_rows;  // B or 1
  const float* packed;
  const float *c0, *h0;
  // [N, T, B, 4H]; null: the activations are not kept
  float* active;
  // [N, kept, B, H]: step t is at t % kept
  float *c, *h;
  int64_t kept_c, kept_h;
  bool bfloat16;  // h is rounded

  // Rows [first, last) of recurrence n.
  void run(int64_t n, int64_t first, int64_t last) const {
    const auto [N, T, B, H] = s;
    const float* weights = packed + n * kGates * H * H;
    for (int64_t t = 0; t < T; ++t) {
      const auto place = [&, n = n](int64_t kept, int64_t step) { return (n * kept + step % kept) * B * H; };
      const Step at{(n * T + t) * B,
                    t ? c + place(kept_c, t - 1) : c0 + n * B * H,
                    t ? h + place(kept_h, t - 1) : h0 + n * B * H,
                    c + place(kept_c, t), h + place(kept_h, t)};
      for (int64_t u = 0; u < H; u += kLanes) {
        const float* panel = weights + u * kGates * H;
        by_rows(last - first, [&](auto group, int64_t row) {
          advance<decltype(group)::value>(n, at, first + row, u, panel);
        });
      }
    }
  }

  struct Step {
    int64_t row;  // of [N * T * B, 4H]
    const float *c_before, *h_before;
    float *c, *h;
  };

  template <int R>
  inline __attribute__((always_inline)) void advance(int64_t n, const Step& at, int64_t row,
                                                     int64_t u, const float* panel) const {
    const int64_t H = s.H, G = kGates * H;
    const float* read = inputs ? inputs : active;
    // Lines that are far apart: asked for now, they arrive during the product.
    for (int r = 0; r < R; ++r) {
      for (int g = 0; read && g < kGates; ++g)
        __builtin_prefetch(read + (at.row + row + r) * G + g * H + u, 1);
      __builtin_prefetch(at.c_before + (row + r) * H + u);
    }
    Vec sums[R][kGates] = {};
    multiply<R, kGates>(at.h_before + row * H, H, panel, H, sums);
    for (int r = 0; r < R; ++r) {
      const int64_t b = row + r;
      const float* fixed = constant + (n * constant_rows + (constant_rows > 1 ? b : 0)) * G + u;
      for (int g = 0; g < kGates; ++g) {
        sums[r][g] += load(fixed + g * H);
        if (inputs) sums[r][g] += load(inputs + (at.row + b) * G + g * H + u);
      }
      const Vec i = sigmoid(sums[r][0]), j = tanh_of(sums[r][1]);
      const Vec f = sigmoid(sums[r][2] + 1.0f), o = sigmoid(sums[r][3]);
      const Vec cell = j * i + load(at.c_before + b * H + u) * f;
      if (active) {
        float* out = active + (at.row + b) * G + u;
        store(out, i);
        store(out + H, j);
        store(out + 2 * H, f);
        store(out + 3 * H, o);
      }
      store(at.c + b * H + u, cell);
      const Vec out = tanh_of(cell) * o;
      store(at.h + b * H + u, bfloat16 ? to_bfloat16(out) : out);
    }
  }
};

struct Backward {
  Shape s;
  const float* packed;
  const float *c, *c0, *grad;
  bool each_step;   // grad is [N, T, B, H], else of the last h, [N, B, H]
  float* gates;     // [N, T, B, 4H]: activations, then gate gradients
  float* constant;  // [N, B, 4H]
  float *dc, *dh;   // [N, B, H], of the start
  bool bfloat16;    // gate gradients are rounded, but for their sum over the steps

  void run(int64_t n, int64_t first, int64_t last) const {
    const auto [N, T, B, H] = s;
    const int64_t G = kGates * H;
    for (int64_t b = n * B + first; b < n * B + last; ++b) {
      std::memset(constant + b * G, 0, G * 4);
      std::memset(dc + b * H, 0, H * 4);
      if (each_step)
        std::memset(dh + b * H, 0, H * 4);
      else
        std::memcpy(dh + b * H, grad + b * H, H * 4);
    }
    for (int64_t t = T - 1; t >= 0; --t) {
      const int64_t at = (n * T + t) * B;
      const float* before = t ? c + (at - B) * H : c0 + n * B * H;
      for (int64_t b = first; b < last; ++b)
        for (int64_t u = 0; u < H; u += kLanes) differentiate(n, at, b, u, before);
      const float* panel = packed + n * G * H;
      for (int64_t u = 0; u < H; u += kGates * kLanes) {
        switch (std::min<int64_t>(kGates, (H - u) / kLanes)) {
          case 4: panel = propagate<4>(n, at, first, last, u, panel); break;
          case 3: panel = propagate<3>(n, at, first, last, u, panel); break;
          case 2: panel = propagate<2>(n, at, first, last, u, panel); break;
          default: panel = propagate<1>(n, at, first, last, u, panel);
        }
      }
    }
  }

  inline __attribute__((always_inline)) void differentiate(int64_t n, int64_t at, int64_t b,
                                                           int64_t u, const float* before) const {
    const int64_t H = s.H;
    float* gate = gates + (at + b) * kGates * H + u;
    float* total = constant + (n * s.B + b) * kGates * H + u;
    float* cell = dc + (n * s.B + b) * H + u;
    Vec upper = load(dh + (n * s.B + b) * H + u);
    if (each_step) upper += load(grad + (at + b) * H + u);
    Vec i = load(gate), j = load(gate + H), f = load(gate + 2 * H), o = load(gate + 3 * H);
    Vec top = tanh_of(load(c + (at + b) * H + u));
    Vec inner = load(cell) + upper * o * (1.0f - top * top);
    const Vec results[kGates] = {
        inner * j * i * (1.0f - i),
        inner * i * (1.0f - j * j),
        inner * load(before + b * H + u) * f * (1.0f - f),
        upper * top * o * (1.0f - o),
    };
    for (int g = 0; g < kGates; ++g) {
      store(gate + g * H, bfloat16 ? to_bfloat16(results[g]) : results[g]);
      store(total + g * H, load(total + g * H) + results[g]);
    }
    store(cell, inner * f);
  }

  template <int V>
  const float* propagate(int64_t n, int64_t at, int64_t first, int64_t last, int64_t u,
                         const float* panel) const {
    const int64_t H = s.H, G = kGates * H;
    by_rows(last - first, [&](auto group, int64_t row) {
      constexpr int R = decltype(group)::value;
      Vec sums[R][V] = {};
      multiply<R, V>(gates + (at + first + row) * G, G, panel, G, sums);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
          store(dh + (n * s.B + first + row + r) * H + u + v * kLanes, sums[r][v]);
    });
    return panel + G * V * kLanes;
  }
};

int64_t leading(ffi::AnyBuffer::Dimensions dims, size_t last) {
  int64_t product = 1;
  for (size_t d = 0; d + last < dims.size(); ++d) product *= dims[d];
  return product;
}

template <typename Work>
void run_blocks(ffi::ThreadPool& pool, const Shape& s, const Work& work) {
  const int64_t blocks = block_count(s, std::max<int64_t>(1, pool.num_threads()));
  run_items(pool, s.N * blocks, [&work, &s, blocks](int64_t item) {
    const int64_t n = item / blocks, block = item % blocks;
    work.run(n, s.B * block / blocks, s.B * (block + 1) / blocks);
  });
}

using F32 = ffi::Buffer<ffi::F32>;
using Out = ffi::ResultBuffer<ffi::F32>;

// `active` is [N, T, B, 4H], or anything if the activations are not kept.
ffi::Error forward(ffi::ThreadPool pool, int64_t steps, bool has_inputs, bool keep_active,
                   bool bfloat16, F32 inputs, F32 constant, F32 kernel, F32 c0, F32 h0, Out active, Out c,
                   Out h) {
  const auto d = h->dimensions(), cd = c->dimensions(), k = constant.dimensions();
  const size_t rank = d.size();
  const Shape s{leading(d, 3), steps, d[rank - 2], d[rank - 1]};
  const int64_t size = kGates * s.H * s.H;
  const Packed packed(s.N * size);
  run_items(pool, s.N, [&](int64_t n) {
    pack_gates(kernel.typed_data() + n * size, s.H, packed.data + n * size);
  });
  Forward work{s,
               has_inputs ? inputs.typed_data() : nullptr,
               constant.typed_data(),
               k[k.size() - 2],
               packed.data,
               c0.typed_data(),
               h0.typed_data(),
               keep_active ? active->typed_data() : nullptr,
               c->typed_data(),
               h->typed_data(),
               cd[cd.size() - 3],
               d[rank - 3],
               bfloat16};
  run_blocks(pool, s, work);
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, bool each_step, bool bfloat16, F32 active, F32 c,
                    F32 c0, F32 kernel, F32 grad, Out gates, Out constant, Out dc, Out dh) {
  const auto d = c.dimensions();
  const size_t rank = d.size();
  const Shape s{leading(d, 3), d[rank - 3], d[rank - 2], d[rank - 1]};
  const int64_t size = kGates * s.H * s.H;
  if (active.typed_data() != gates->typed_data())
    std::memcpy(gates->typed_data(), active.typed_data(), active.size_bytes());
  const Packed packed(s.N * size);
  run_items(pool, s.N, [&](int64_t n) {
    pack_transposed(kernel.typed_data() + n * size, s.H, packed.data + n * size);
  });
  run_blocks(pool, s,
             Backward{s, packed.data, c.typed_data(), c0.typed_data(), grad.typed_data(),
                      each_step, gates->typed_data(), constant->typed_data(), dc->typed_data(),
                      dh->typed_data(), bfloat16});
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(musicvae_lstm_forward, forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("steps")
                                  .Attr<bool>("has_inputs")
                                  .Attr<bool>("keep_active")
                                  .Attr<bool>("bfloat16")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(musicvae_lstm_backward, backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("each_step")
                                  .Attr<bool>("bfloat16")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>());

// Units of a layer must be a multiple of this.
extern "C" int musicvae_lstm_lanes() { return kLanes; }
