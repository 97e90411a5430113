// SIGReg's kernels, written once over a vector type V; sigreg_avx2.cpp and sigreg_avx512.cpp instantiate them.
// Internal linkage: each of those files is compiled with its own flags.
#pragma once

#include "cpu/bf16.h"
#include "cpu/sigreg_directions.h"
#include "cpu/sigreg_kernels.h"

namespace lewm::cpu {
namespace {

template <class V>
struct SigregSimd {
  using F = typename V::F;  // V::kWidth floats
  using D = typename V::D;  // V::kWidth / 2 doubles
  using I = typename V::I;  // V::kWidth 32-bit integers
  static constexpr int kWidth = V::kWidth;
  static constexpr int kColumns = 2 * kWidth;
  static constexpr int kRows = V::kRows;        // of a register tile: kRows x 2 accumulators
  static constexpr int kAngles = 4;             // rows whose rotations are interleaved
  static constexpr std::int64_t kSegment = 64;  // knots between two fresh sincos: rotations drift by half an ulp each

  // -------------------------------------------------------------------------------------------------------------------
  // cos and sin of knots
  // -------------------------------------------------------------------------------------------------------------------

  struct Rotation {
    F c, s;
  };

  // `a` turned by n quarters.
  [[gnu::always_inline]] static inline Rotation turn_quarters(I n, Rotation a) {
    const I sign = V::set_int(0x80000000u);
    const I flip_s = V::and_int(V::template shift_left<30>(n), sign);
    const I flip_c = V::and_int(V::template shift_left<30>(V::add_int(n, V::set_int(1))), sign);
    return {V::xor_bits(V::odd_first(n, a.s, a.c), flip_c), V::xor_bits(V::odd_first(n, a.c, a.s), flip_s)};
  }

  // cos and sin of 2 pi turns, |turns| <= 1/2; error below 1e-7 absolute, and relative for small sines. Leading
  // coefficients are in two parts: a rounded 2 pi would bend every angle the same way, which no sum averages out.
  [[gnu::always_inline]] static inline Rotation sincos(F turns) {
    const F quarters = V::round(V::mul(turns, V::set(4.0f)));
    const F r = V::fnma(quarters, V::set(0.25f), turns);  // [-1/8, 1/8], exact
    const F rr = V::mul(r, r);
    F s = V::fma(V::set(41.5896f), rr, V::set(-76.70129f));
    s = V::fma(s, rr, V::set(81.60523f));
    s = V::fma(s, rr, V::set(-41.3417f));
    s = V::fma(s, rr, V::set(-0x1.777a5cp-23f));
    s = V::fma(r, V::set(0x1.921fb6p+2f), V::mul(r, s));
    F c = V::fma(V::set(59.62864f), rr, V::set(-85.45322f));
    c = V::fma(c, rr, V::set(64.93939f));
    c = V::fma(c, rr, V::set(-0x1.37c8bcp-21f));
    c = V::fma(rr, V::set(-0x1.3bd3ccp+4f), V::fma(rr, c, V::set(1.0f)));
    return turn_quarters(V::to_int(quarters), {c, s});
  }

  // The rotation by k turns, k * turns reduced without loss.
  [[gnu::always_inline]] static inline Rotation sincos_multiple(F turns, std::int64_t k) {
    const F factor = V::set(static_cast<float>(k));
    const F whole = V::round(V::mul(turns, factor));
    return sincos(V::fms(turns, factor, whole));
  }

  [[gnu::always_inline]] static inline Rotation rotate(Rotation a, Rotation b) {
    return {V::fnma(a.s, b.s, V::mul(a.c, b.c)), V::fma(a.s, b.c, V::mul(a.c, b.s))};
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Directions
  // -------------------------------------------------------------------------------------------------------------------

  // philox::normals, operation by operation, so that every instruction set draws the same bits.
  [[gnu::always_inline]] static inline Rotation normals(I radius_word, I angle_word) {
    const I x = V::template shift_right<1>(radius_word);
    const F u = V::fma(V::from_int(x), V::set(0x1p-31f), V::set(0x1p-32f));
    const F rest = V::from_int(V::sub_int(V::set_int(0x7FFFFFFFu), x));
    const F complement = V::fma(rest, V::set(0x1p-31f), V::set(0x1p-32f));
    const I sqrt_half = V::set_int(0x3F3504F3u);
    const I shifted = V::add_int(V::bits(u), V::set_int(0u - 0x3F3504F3u));
    const F e = V::from_int(V::template shift_right_signed<23>(shifted));
    const F m = V::from_bits(V::add_int(V::and_int(shifted, V::set_int(0x007FFFFFu)), sqrt_half));
    const F f = V::where_zero(e, V::sub(V::set(-0.0f), complement), V::sub(m, V::set(1.0f)));
    F p = V::fma(V::set(-0.083050534f), f, V::set(0.12798768f));
    p = V::fma(p, f, V::set(-0.12943469f));
    p = V::fma(p, f, V::set(0.14190255f));
    p = V::fma(p, f, V::set(-0.16643485f));
    p = V::fma(p, f, V::set(0.2000188f));
    p = V::fma(p, f, V::set(-0.2500028f));
    p = V::fma(p, f, V::set(0.33333325f));
    p = V::fma(p, f, V::set(-0.5f));
    p = V::fma(V::mul(f, f), p, f);
    const F minus_log = V::sub(V::set(-0.0f), V::fma(e, V::set(0.69314718f), p));
    const F radius = V::square_root(V::mul(V::set(2.0f), minus_log));

    const I quadrant = V::template shift_right<30>(V::add_int(angle_word, V::set_int(0x20000000u)));
    const F t = V::mul(V::from_int(V::template shift_left<2>(angle_word)), V::set(0x1p-32f));
    const F tt = V::mul(t, t);
    F s = V::fma(V::set(0.00015820675f), tt, V::set(-0.0046812664f));
    s = V::fma(s, tt, V::set(0.07969258f));
    s = V::fma(s, tt, V::set(-0.6459641f));
    s = V::fma(s, tt, V::set(1.5707964f));
    s = V::mul(s, t);
    F c = V::fma(V::set(-2.4850968e-05f), tt, V::set(0.0009191617f));
    c = V::fma(c, tt, V::set(-0.020863468f));
    c = V::fma(c, tt, V::set(0.2536695f));
    c = V::fma(c, tt, V::set(-1.2337005f));
    c = V::fma(c, tt, V::set(1.0f));
    const Rotation angle = turn_quarters(quadrant, {c, s});
    return {V::mul(radius, angle.c), V::mul(radius, angle.s)};
  }

  static void draw(std::uint64_t seed, std::int64_t first, std::int64_t dim, float* strip) {
    D squares[4];
    for (D& square : squares) square = V::set_double(0.0);
    for (std::int64_t row = 0; row < dim; row += 4) {
      std::uint32_t words[4][kColumns];
      for (int c = 0; c < kColumns; ++c) {
        words[0][c] = static_cast<std::uint32_t>(row / 4);
        words[1][c] = static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(c);
        words[2][c] = words[3][c] = 0;
      }
      sigreg_philox<kColumns>(seed, words);
      float quad[4][kColumns];
      for (int half = 0; half < kColumns; half += kWidth) {
        for (int pair = 0; pair < 4; pair += 2) {
          const Rotation z = normals(V::load_int(words[pair] + half), V::load_int(words[pair + 1] + half));
          V::store(quad[pair] + half, z.c);
          V::store(quad[pair + 1] + half, z.s);
        }
      }
      for (int r = 0; r < 4 && row + r < dim; ++r) {
        for (int i = 0; i < 4; ++i) {
          const D x = V::widen(quad[r] + i * (kWidth / 2));
          squares[i] = V::add_double(squares[i], V::mul_double(x, x));
        }
        for (int half = 0; half < kColumns; half += kWidth) {
          V::store(strip + (row + r) * kColumns + half, V::load(quad[r] + half));
        }
      }
    }
    double inverse[kColumns];
    for (int i = 0; i < 4; ++i) V::store_double(inverse + i * (kWidth / 2), squares[i]);
    for (double& x : inverse) x = sigreg_inverse_length(x);
    for (std::int64_t row = 0; row < dim; ++row) {
      for (int i = 0; i < 4; ++i) {
        float* at = strip + row * kColumns + i * (kWidth / 2);
        V::narrow(at, V::mul_double(V::widen(at), V::load_double(inverse + i * (kWidth / 2))));
      }
    }
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Sums over rows
  // -------------------------------------------------------------------------------------------------------------------

  // Adds R rows of one vector of columns to the float sums of knots 1..knots-1.
  template <int R>
  [[gnu::always_inline]] static inline void add_rows(const float* turns, std::int64_t knots, float* sums) {
    F angle[R];
    Rotation step[R];
    for (int r = 0; r < R; ++r) {
      angle[r] = V::load(turns + r * kColumns);
      step[r] = sincos(angle[r]);
    }
    float* cos_sums = sums;
    float* sin_sums = sums + knots * kColumns;
    for (std::int64_t first = 1; first < knots; first += kSegment) {
      const std::int64_t end = knots - first < kSegment ? knots : first + kSegment;
      Rotation at[R];
      for (int r = 0; r < R; ++r) at[r] = first == 1 ? step[r] : sincos_multiple(angle[r], first);
      for (std::int64_t k = first;; ++k) {
        F c = at[0].c, s = at[0].s;
        for (int r = 1; r < R; ++r) {
          c = V::add(c, at[r].c);
          s = V::add(s, at[r].s);
        }
        V::store(cos_sums + k * kColumns, V::add(V::load(cos_sums + k * kColumns), c));
        V::store(sin_sums + k * kColumns, V::add(V::load(sin_sums + k * kColumns), s));
        if (k + 1 == end) break;
        for (int r = 0; r < R; ++r) at[r] = rotate(at[r], step[r]);
      }
    }
  }

  static void add_sums(const float* turns, std::int64_t rows, std::int64_t knots, float* scratch, double* sums) {
    const std::int64_t size = 2 * knots * kColumns;
    for (std::int64_t i = 0; i < size; i += kWidth) V::store(scratch + i, V::set(0.0f));
    for (int half = 0; half < kColumns; half += kWidth) {
      std::int64_t row = 0;
      for (; row + kAngles <= rows; row += kAngles) {
        add_rows<kAngles>(turns + row * kColumns + half, knots, scratch + half);
      }
      for (; row < rows; ++row) add_rows<1>(turns + row * kColumns + half, knots, scratch + half);
    }
    for (int half = 0; half < kColumns; half += kWidth)
      V::store(scratch + half, V::set(static_cast<float>(rows)));  // cos 0
    for (std::int64_t i = 0; i < size; i += kWidth / 2) {
      V::store_double(sums + i, V::add_double(V::load_double(sums + i), V::widen(scratch + i)));
    }
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Slopes
  // -------------------------------------------------------------------------------------------------------------------

  // The real part of sum_k (a_k - i b_k) e^(i k angle), by Horner's rule in each segment of knots.
  template <int R>
  [[gnu::always_inline]] static inline void slope_rows(const float* turns, std::int64_t knots,
                                                       const float* coefficients, float* slope, std::int64_t stride) {
    F angle[R], total[R];
    Rotation step[R];
    for (int r = 0; r < R; ++r) {
      angle[r] = V::load(turns + r * kColumns);
      step[r] = sincos(angle[r]);
      total[r] = V::set(0.0f);
    }
    const float* by_cos = coefficients;
    const float* by_sin = coefficients + knots * kColumns;
    for (std::int64_t first = 1; first < knots; first += kSegment) {
      const std::int64_t last = (knots - first < kSegment ? knots : first + kSegment) - 1;
      F re[R], im[R];
      for (int r = 0; r < R; ++r) {
        re[r] = V::load(by_cos + last * kColumns);
        im[r] = V::load(by_sin + last * kColumns);
      }
      for (std::int64_t k = last - 1; k >= first; --k) {
        const F a = V::load(by_cos + k * kColumns), b = V::load(by_sin + k * kColumns);
        for (int r = 0; r < R; ++r) {
          // im holds minus the imaginary part.
          const F next = V::fma(re[r], step[r].c, V::fma(im[r], step[r].s, a));
          im[r] = V::fma(im[r], step[r].c, V::fnma(re[r], step[r].s, b));
          re[r] = next;
        }
      }
      for (int r = 0; r < R; ++r) {
        const Rotation at = first == 1 ? step[r] : sincos_multiple(angle[r], first);
        total[r] = V::fma(re[r], at.c, V::fma(im[r], at.s, total[r]));
      }
    }
    for (int r = 0; r < R; ++r) V::store(slope + r * stride, total[r]);
  }

  static void slope(const float* turns, std::int64_t rows, std::int64_t knots, const float* coefficients, float* slope,
                    std::int64_t stride) {
    for (int half = 0; half < kColumns; half += kWidth) {
      std::int64_t row = 0;
      for (; row + kAngles <= rows; row += kAngles) {
        slope_rows<kAngles>(turns + row * kColumns + half, knots, coefficients + half, slope + row * stride + half,
                            stride);
      }
      for (; row < rows; ++row) {
        slope_rows<1>(turns + row * kColumns + half, knots, coefficients + half, slope + row * stride + half, stride);
      }
    }
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Matrix products
  // -------------------------------------------------------------------------------------------------------------------

  // acc = x strip, x [R, k] with row stride x_stride. Three rows share a pointer: one index register serves them all.
  template <int R>
  [[gnu::always_inline]] static inline void tile(const float* x, std::int64_t x_stride, std::int64_t k,
                                                 const float* strip, F (&acc)[R][2]) {
    constexpr int kPointers = (R + 2) / 3;
    const float* rows[kPointers];
    for (int i = 0; i < kPointers; ++i) rows[i] = x + 3 * i * x_stride;
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = V::set(0.0f);
    for (std::int64_t i = 0; i < k; ++i) {
      const F b0 = V::load(strip + i * kColumns), b1 = V::load(strip + i * kColumns + kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F a = V::set(rows[r / 3][(r % 3) * x_stride]);
        acc[r][0] = V::fma(a, b0, acc[r][0]);
        acc[r][1] = V::fma(a, b1, acc[r][1]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < kPointers; ++j) ++rows[j];
    }
  }

  // Calls Body::run<R>() for the R in 1..kRows that is `rows`.
  template <class Body, int R = kRows>
  static inline void with_rows(std::int64_t rows, const Body& body) {
    if (rows == R) {
      body.template run<R>();
    } else if constexpr (R > 1) {
      with_rows<Body, R - 1>(rows, body);
    }
  }

  struct MultiplyTile {
    const SigregProduct& args;
    std::int64_t row;

    template <int R>
    [[gnu::noinline]] void run() const {
      F acc[R][2];
      tile<R>(args.x + row * args.x_stride, args.x_stride, args.k, args.strip, acc);
      float* out = args.out + row * args.out_stride;
      for (int r = 0; r < R; ++r, out += args.out_stride) {
        for (int half = 0; half < 2; ++half) {
          const std::int64_t n = args.n - half * kWidth;
          if (n <= 0) continue;
          float* to = out + half * kWidth;
          const F y = args.accumulate ? V::add(V::load_first(to, n), acc[r][half]) : acc[r][half];
          V::store_first(to, y, n);
        }
      }
    }
  };

  static void multiply(const SigregProduct& args) {
    for (std::int64_t row = 0; row < args.rows; row += kRows) {
      const std::int64_t left = args.rows - row;
      with_rows(left < kRows ? left : kRows, MultiplyTile{args, row});
    }
  }

  // turns_per_unit in two floats, so that a product with it loses nothing before whole turns are taken off.
  struct NarrowTile {
    const SigregProjection& args;
    const float* z;  // [R, dim]
    float* turns;

    template <int R>
    [[gnu::noinline]] void run() const {
      F acc[R][2];
      tile<R>(z, args.dim, args.dim, args.strip, acc);
      const float high = static_cast<float>(args.turns_per_unit);
      const F factor = V::set(high), rest = V::set(static_cast<float>(args.turns_per_unit - static_cast<double>(high)));
      for (int r = 0; r < R; ++r) {
        for (int half = 0; half < 2; ++half) {
          const F p = acc[r][half];
          const F whole = V::round(V::mul(p, factor));
          const F fraction = V::fms(p, factor, whole);
          V::store(turns + r * kColumns + half * kWidth, V::fma(p, rest, fraction));
        }
      }
    }
  };

  // The same in double: half a strip at a time.
  struct WideTile {
    const SigregProjection& args;
    const double* z;  // [R, dim]
    float* turns;

    template <int R>
    [[gnu::noinline]] void run() const {
      const D factor = V::set_double(args.turns_per_unit);
      for (int half = 0; half < kColumns; half += kWidth) {
        D acc[R][2];
        for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = V::set_double(0.0);
        for (std::int64_t i = 0; i < args.dim; ++i) {
          const float* b = args.strip + i * kColumns + half;
          const D b0 = V::widen(b), b1 = V::widen(b + kWidth / 2);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const D a = V::set_double(z[r * args.dim + i]);
            acc[r][0] = V::fma_double(a, b0, acc[r][0]);
            acc[r][1] = V::fma_double(a, b1, acc[r][1]);
          }
        }
        for (int r = 0; r < R; ++r) {
          for (int part = 0; part < 2; ++part) {
            V::narrow(turns + r * kColumns + half + part * (kWidth / 2),
                      V::fraction(V::mul_double(acc[r][part], factor)));
          }
        }
      }
    }
  };

  // Values [first, first + count) of z as float or double; z is bf16 or float.
  template <class To>
  static void convert(const SigregProjection& args, std::int64_t first, std::int64_t count, To* out) {
    if (args.storage == Store::bf16) {
      const std::uint16_t* z = static_cast<const std::uint16_t*>(args.z) + first;
      for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<To>(float_from_bf16(z[i]));
    } else {
      const float* z = static_cast<const float*>(args.z) + first;
      for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<To>(z[i]);
    }
  }

  static void project(const SigregProjection& args) {
    for (std::int64_t row = 0; row < args.rows; row += kRows) {
      const std::int64_t rows = args.rows - row < kRows ? args.rows - row : kRows;
      float* turns = args.turns + row * kColumns;
      if (args.wide) {
        double* z = static_cast<double*>(args.scratch);
        convert(args, row * args.dim, rows * args.dim, z);
        with_rows(rows, WideTile{args, z, turns});
      } else if (args.storage == Store::bf16) {
        float* z = static_cast<float*>(args.scratch);
        convert(args, row * args.dim, rows * args.dim, z);
        with_rows(rows, NarrowTile{args, z, turns});
      } else {
        with_rows(rows, NarrowTile{args, static_cast<const float*>(args.z) + row * args.dim, turns});
      }
    }
  }

  static constexpr SigregKernels table() {
    return {kColumns, kRows, draw, project, add_sums, slope, multiply, nullptr, nullptr};
  }
};

}  // namespace
}  // namespace lewm::cpu
