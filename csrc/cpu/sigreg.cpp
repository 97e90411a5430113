#include "cpu/sigreg.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "cpu/bf16.h"
#include "cpu/sigreg_kernels.h"
#include "cpu/sigreg_statistic.h"

namespace lewm::cpu {
namespace {

constexpr std::int64_t kTileColumns = 512;          // directions worked on at once
constexpr std::int64_t kScratchBytes = 64ll << 20;  // aimed at for the angles and sums of a tile
constexpr std::int64_t kChunkRows = 4096;           // samples in one partial sum
constexpr std::int64_t kPackedRows = 16384;         // packed at once, or those of one chunk of each time step
constexpr std::size_t kKeptBytes = 72u << 20;       // of workspace, from one call to the next: scratch and packed rows
constexpr std::int64_t kDescentRows = 64;           // samples whose gradient is one task
constexpr std::int64_t kPrepareRows = 64;           // samples of one task before the first product

// Angles s_k p are good to about 1e-7 * |z| * t_max radians when p is summed in float; beyond this product, in double.
constexpr double kWideAbove = 128.0;

// The largest squared length of `rows` embeddings; NaN is ignored.
double largest_square(const SigregInput& in, std::int64_t first, std::int64_t rows) {
  double largest = 0;
  for (std::int64_t row = first; row < first + rows; ++row) {
    constexpr int kLanes = 8;
    float lanes[kLanes] = {};
    const std::int64_t begin = row * in.dim, end = begin + in.dim;
    std::int64_t i = begin;
    if (in.storage == Store::f32) {
      const float* z = static_cast<const float*>(in.z);
      for (; i + kLanes <= end; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += z[i + lane] * z[i + lane];
      }
      for (; i < end; ++i) lanes[0] += z[i] * z[i];
    } else {
      const std::uint16_t* z = static_cast<const std::uint16_t*>(in.z);
      for (; i < end; ++i) lanes[0] += float_from_bf16(z[i]) * float_from_bf16(z[i]);
    }
    double square = 0;
    for (float lane : lanes) square += static_cast<double>(lane);
    if (square > largest) largest = square;
  }
  return largest;
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

// One run: over groups of time steps and, within each, tiles of directions. The phases of a tile are parallel inside
// and meet in between; every array element is written by one task, and partial results are added in a fixed order.
class Sigreg::Pass {
 public:
  Pass(Sigreg& sigreg, const SigregInput& input, bool descends)
      : in_(input),
        pool_(sigreg.pool_),
        kernels_(sigreg.kernels_),
        knots_(sigreg_knots(input)),
        descends_(descends),
        strip_(kernels_.columns) {
    plan_tiles();
    lay_out(sigreg.workspace_);
  }

  // out: [T, M, 2, K]
  void sums(double* out) {
    for_each_tile([&] {
      project(true, [&](std::int64_t t, std::int64_t strip) {
        for (std::int64_t c = 0; c < valid_columns(strip); ++c) {
          const SigregSums view = own_sums(t, strip, c);
          double* to = out + sums_index(t, strip, c);
          for (std::int64_t k = 0; k < in_.knots; ++k) {
            to[k] = view.cos[k * view.stride];
            to[in_.knots + k] = view.sin[k * view.stride];
          }
        }
      });
    });
  }

  // Returns the mean statistic; gradient: [T, B, D] or null.
  double value(float* gradient) {
    const double batch = static_cast<double>(in_.batch);
    double total = 0;
    for_each_tile([&] {
      project(true, [&](std::int64_t t, std::int64_t strip) {
        double sum = 0;
        for (std::int64_t c = 0; c < valid_columns(strip); ++c) {
          const SigregSums view = own_sums(t, strip, c);
          sum += sigreg_statistic(view, knots_, batch);
          if (descends_) set_coefficients(view, batch, 1.0, t, strip, c);
        }
        if (descends_) clear_coefficients(t, strip);
        statistics_[t * tile_strips_ + strip] = sum;
      });
      for (std::int64_t i = 0; i < steps_ * tile_strips_; ++i) total += statistics_[i];
      if (descends_) descend(gradient);
    });
    return total / (static_cast<double>(in_.steps) * static_cast<double>(in_.num_proj));
  }

  // sums: [T, M, 2, K] over `total` samples
  void gradient(const double* sums, double total, double scale, float* gradient) {
    for_each_tile([&] {
      project(false, [&](std::int64_t t, std::int64_t strip) {
        for (std::int64_t c = 0; c < valid_columns(strip); ++c) {
          const double* at = sums + sums_index(t, strip, c);
          set_coefficients({at, at + in_.knots, 1}, total, scale, t, strip, c);
        }
        clear_coefficients(t, strip);
      });
      descend(gradient);
    });
  }

 private:
  // Angles and sums of one time step for a tile of `columns` directions.
  std::int64_t bytes_per_step(std::int64_t columns) const {
    const std::int64_t angles = descends_ ? in_.batch * 4 : 0;
    return columns * (angles + 2 * in_.knots * (chunks_ * 8 + 4));
  }

  void plan_tiles() {
    packed_row_ = kSigregProjectParts * sigreg_packed_k(in_.dim);
    chunks_ = std::max<std::int64_t>(1, ceil_div(in_.batch, kChunkRows));
    tile_columns_ = std::min(round_up(in_.num_proj, strip_), kTileColumns);
    while (tile_columns_ > 2 * strip_ && bytes_per_step(tile_columns_) > kScratchBytes) {
      tile_columns_ = round_up(tile_columns_ / 2, strip_);
    }
    const std::int64_t packed = kernels_.pack_rows ? std::min(in_.batch, kChunkRows) * packed_row_ * 2 : 0;
    group_steps_ = std::clamp<std::int64_t>(kScratchBytes / (bytes_per_step(tile_columns_) + packed), 1, in_.steps);
    pack_chunks_ = std::clamp<std::int64_t>(kPackedRows / (group_steps_ * kChunkRows), 1, chunks_);
    packed_batch_ = std::min(in_.batch, pack_chunks_ * kChunkRows);
    tile_strips_ = tile_columns_ / strip_;
    slope_stride_ = tile_columns_ + kSlopePadding;
    dim_strips_ = ceil_div(in_.dim, strip_);
    packed_slope_ = kSigregSlopeParts * sigreg_packed_k(tile_columns_);
  }

  // Cuts the workspace into arrays, after a first walk that measures; what it held before does not matter.
  void lay_out(AlignedBlock& workspace) {
    scratch_.resize(static_cast<std::size_t>(pool_.threads()));
    Cutter measure;
    take_arrays(measure);
    if (workspace.bytes() < measure.used) {
      workspace = AlignedBlock();  // before the next one is there
      workspace = AlignedBlock(measure.used);
    }
    Cutter cutter{workspace.data()};
    take_arrays(cutter);
  }

  struct Cutter {
    std::byte* base = nullptr;
    std::size_t used = 0;

    template <class T>
    T* take(std::int64_t count) {
      const std::size_t offset = used;
      used += static_cast<std::size_t>(round_up(count * static_cast<std::int64_t>(sizeof(T)), kAlignment));
      return base ? reinterpret_cast<T*>(base + offset) : nullptr;
    }
  };

  void take_arrays(Cutter& cutter) {
    const std::int64_t per_sum = 2 * in_.knots * strip_;
    const std::int64_t strips = group_steps_ * tile_strips_;
    strips_ = cutter.take<float>(tile_strips_ * in_.dim * strip_);
    sums_ = cutter.take<double>(chunks_ * strips * per_sum);
    statistics_ = cutter.take<double>(strips);
    norms_ = cutter.take<double>(ceil_div(group_steps_ * in_.batch, kPrepareRows));
    if (kernels_.pack_rows) {
      packed_rows_ = cutter.take<std::uint16_t>((group_steps_ * packed_batch_ + kSigregRowPadding) * packed_row_);
      packed_strips_ = cutter.take<std::uint16_t>(tile_strips_ * packed_row_ * strip_);
      if (descends_) packed_transposed_ = cutter.take<std::uint16_t>(dim_strips_ * packed_slope_ * strip_);
    }
    if (descends_) {
      if (!kernels_.pack_strip) transposed_ = cutter.take<float>(dim_strips_ * tile_columns_ * strip_);
      coefficients_ = cutter.take<float>(strips * per_sum);
      turns_ = cutter.take<float>(strips * in_.batch * strip_);
    }
    for (Scratch& own : scratch_) {
      own.rows = cutter.take<double>(kernels_.scratch_rows * in_.dim);
      own.sums = cutter.take<float>(per_sum);
      own.turns = cutter.take<float>(kSigregRows * strip_);
      if (!descends_) continue;
      own.block = cutter.take<float>(strip_ * strip_);
      own.slope = cutter.take<float>(kDescentRows * slope_stride_);
      if (kernels_.pack_rows) own.packed_slope = cutter.take<std::uint16_t>(kDescentRows * packed_slope_);
    }
  }

  // Decides on the precision of a group's projections, and packs its embeddings for tables that want it, if all fit.
  void prepare_group() {
    const std::int64_t rows = steps_ * in_.batch, tasks = ceil_div(rows, kPrepareRows);
    pool_.run(tasks, [&](std::int64_t task, int) {
      const std::int64_t first = task * kPrepareRows, count = std::min(kPrepareRows, rows - first);
      norms_[task] = largest_square(in_, first_step_ * in_.batch + first, count);
    });
    const double largest = tasks ? *std::max_element(norms_, norms_ + tasks) : 0.0;
    wide_ = std::sqrt(largest) * in_.t_max > kWideAbove;
    packs_ = kernels_.pack_rows && !wide_;
    if (packs_ && packed_batch_ == in_.batch) pack(0);
  }

  // Packs the rows of pack_chunks_ chunks from `chunk` on, of every time step of the group.
  void pack(std::int64_t chunk) {
    first_packed_ = chunk * kChunkRows;
    const std::int64_t rows = std::min(packed_batch_, in_.batch - first_packed_), parts = ceil_div(rows, kPrepareRows);
    pool_.run(steps_ * parts, [&](std::int64_t task, int) {
      const std::int64_t t = task / parts, row = first_packed_ + task % parts * kPrepareRows;
      kernels_.pack_rows(embedding(first_step_ + t, row), in_.storage, in_.dim,
                         std::min(kPrepareRows, first_packed_ + rows - row), in_.dim, kSigregProjectParts,
                         packed_row_at(t, row));
    });
  }

  template <class Body>
  void for_each_tile(const Body& body) {
    for (first_step_ = 0; first_step_ < in_.steps; first_step_ += group_steps_) {
      steps_ = std::min(group_steps_, in_.steps - first_step_);
      prepare_group();
      for (first_column_ = 0; first_column_ < in_.num_proj; first_column_ += tile_columns_) {
        load_directions();
        body();
      }
    }
  }

  // Directions of a strip that exist; sums of those past M are left out, and their coefficients are zero.
  std::int64_t valid_columns(std::int64_t strip) const {
    return std::clamp<std::int64_t>(in_.num_proj - first_column_ - strip * strip_, 0, strip_);
  }

  void load_directions() {
    pool_.run(tile_strips_, [&](std::int64_t strip, int thread) {
      float* to = strips_ + strip * in_.dim * strip_;
      const std::int64_t first = first_column_ + strip * strip_, columns = valid_columns(strip);
      if (in_.directions) {
        if (columns < strip_) std::fill_n(to, in_.dim * strip_, 0.0f);
        for (std::int64_t d = 0; d < in_.dim; ++d) {
          std::copy_n(in_.directions + d * in_.num_proj + first, columns, to + d * strip_);
        }
      } else {
        kernels_.draw(in_.seed, first, in_.dim, to);
      }
      if (packs_) kernels_.pack_strip(to, in_.dim, kSigregProjectParts, packed_strip_at(strip));
      if (descends_) transpose(strip, scratch_[static_cast<std::size_t>(thread)].block);
    });
  }

  // The same directions as the operand of the gradient's product: for each strip of D, [tile columns, strip].
  void transpose(std::int64_t strip, float* block) {
    const std::int64_t block_size = strip_ * strip_;
    for (std::int64_t part = 0; part < dim_strips_; ++part) {
      const std::int64_t first = part * strip_, rows = std::min(strip_, in_.dim - first);
      const float* from = strips_ + (strip * in_.dim + first) * strip_;
      float* to = kernels_.pack_strip ? block : transposed_ + (part * tile_strips_ + strip) * block_size;
      for (std::int64_t c = 0; c < strip_; ++c) {
        for (std::int64_t d = 0; d < rows; ++d) to[c * strip_ + d] = from[d * strip_ + c];
        std::fill(to + c * strip_ + rows, to + (c + 1) * strip_, 0.0f);
      }
      if (kernels_.pack_strip) {
        kernels_.pack_strip(block, strip_, kSigregSlopeParts,
                            packed_transposed_ + (part * tile_strips_ + strip) * kSigregSlopeParts * block_size);
      }
    }
  }

  // Angles of every sample along every direction of the tile, kept where the gradient follows, and their sums.
  // Then finish(t within the group, strip), once its sums are complete.
  template <class Finish>
  void project(bool add_sums, const Finish& finish) {
    const std::int64_t per_sum = 2 * in_.knots * strip_;
    const std::int64_t strips = steps_ * tile_strips_;
    const auto project_strip = [&](std::int64_t task, int thread) {
      const Scratch& own = scratch_[static_cast<std::size_t>(thread)];
      const std::int64_t chunk = task / strips, t = task % strips / tile_strips_, strip = task % tile_strips_;
      double* sums = sums_ + task * per_sum;
      if (add_sums) std::fill_n(sums, per_sum, 0.0);
      const std::int64_t end = std::min(in_.batch, (chunk + 1) * kChunkRows);
      for (std::int64_t row = chunk * kChunkRows; row < end; row += kSigregRows) {
        const std::int64_t rows = std::min(kSigregRows, end - row);
        float* turns = descends_ ? turns_at(t, strip, row) : own.turns;
        kernels_.project({embedding(first_step_ + t, row), in_.storage, rows, in_.dim,
                          strips_ + strip * in_.dim * strip_, turns_per_unit(), wide_, own.rows, turns,
                          packed_row_at(t, row), packed_strip_at(strip)});
        if (add_sums) kernels_.add_sums(turns, rows, in_.knots, own.sums, sums);
      }
      if (chunks_ == 1) finish(t, strip);
    };
    const bool packs_parts = packs_ && packed_batch_ < in_.batch;
    const std::int64_t at_once = packs_parts ? pack_chunks_ : chunks_;
    for (std::int64_t first = 0; first < chunks_; first += at_once) {
      if (packs_parts) pack(first);
      pool_.run(std::min(at_once, chunks_ - first) * strips,
                [&](std::int64_t task, int thread) { project_strip(first * strips + task, thread); });
    }
    if (chunks_ == 1) return;
    pool_.run(strips, [&](std::int64_t task, int) {
      double* total = sums_ + task * per_sum;
      for (std::int64_t chunk = 1; add_sums && chunk < chunks_; ++chunk) {
        const double* part = sums_ + (chunk * strips + task) * per_sum;
        for (std::int64_t i = 0; i < per_sum; ++i) total[i] += part[i];
      }
      finish(task / tile_strips_, task % tile_strips_);
    });
  }

  // d SIGReg / d p = sum_k by_cos[k] cos(s_k p) + by_sin[k] sin(s_k p), times `scale`
  void set_coefficients(SigregSums sums, double total, double scale, std::int64_t t, std::int64_t strip,
                        std::int64_t c) {
    float* by_cos = coefficients_at(t, strip) + c;
    float* by_sin = by_cos + in_.knots * strip_;
    const double mean = 2.0 * scale / (static_cast<double>(in_.steps) * static_cast<double>(in_.num_proj));
    for (std::int64_t k = 0; k < in_.knots; ++k) {
      const SigregKnot& knot = knots_[static_cast<std::size_t>(k)];
      const double factor = mean * knot.weight * knot.s;
      by_cos[k * strip_] = static_cast<float>(factor * sums.sin[k * sums.stride] / total);
      by_sin[k * strip_] = static_cast<float>(factor * (knot.phi - sums.cos[k * sums.stride] / total));
    }
  }

  // Those of directions past M.
  void clear_coefficients(std::int64_t t, std::int64_t strip) {
    const std::int64_t columns = valid_columns(strip);
    float* at = coefficients_at(t, strip);
    for (std::int64_t i = 0; i < 2 * in_.knots; ++i) std::fill(at + i * strip_ + columns, at + (i + 1) * strip_, 0.0f);
  }

  // Adds the tile's part of the gradient; the first tile overwrites.
  void descend(float* gradient) {
    const std::int64_t blocks = ceil_div(in_.batch, kDescentRows);
    const std::int64_t columns = std::min(tile_columns_, round_up(in_.num_proj - first_column_, strip_));
    pool_.run(steps_ * blocks, [&](std::int64_t task, int thread) {
      const Scratch& own = scratch_[static_cast<std::size_t>(thread)];
      const std::int64_t t = task / blocks, row = task % blocks * kDescentRows;
      const std::int64_t rows = std::min(kDescentRows, in_.batch - row);
      for (std::int64_t strip = 0; strip < columns / strip_; ++strip) {
        kernels_.slope(turns_at(t, strip, row), rows, in_.knots, coefficients_at(t, strip), own.slope + strip * strip_,
                       slope_stride_);
      }
      if (own.packed_slope) {
        kernels_.pack_rows(own.slope, Store::f32, slope_stride_, rows, columns, kSigregSlopeParts, own.packed_slope);
      }
      float* out = gradient + ((first_step_ + t) * in_.batch + row) * in_.dim;
      for (std::int64_t strip = 0; strip < dim_strips_; ++strip) {
        const std::int64_t d = strip * strip_;
        kernels_.multiply({own.slope, slope_stride_, rows, columns, transposed_at(strip), std::min(strip_, in_.dim - d),
                           first_column_ > 0, out + d, in_.dim, own.packed_slope, packed_transposed_at(strip)});
      }
    });
  }

  const void* embedding(std::int64_t step, std::int64_t row) const {
    const std::int64_t size = in_.storage == Store::f32 ? 4 : 2;
    return static_cast<const char*>(in_.z) + (step * in_.batch + row) * in_.dim * size;
  }
  double turns_per_unit() const { return in_.t_max / static_cast<double>(in_.knots - 1) / (2 * std::numbers::pi); }
  // Of the sums of all directions, [T, M, 2, K].
  std::int64_t sums_index(std::int64_t t, std::int64_t strip, std::int64_t c) const {
    return ((first_step_ + t) * in_.num_proj + first_column_ + strip * strip_ + c) * 2 * in_.knots;
  }
  const float* transposed_at(std::int64_t part) const {
    return transposed_ ? transposed_ + part * tile_columns_ * strip_ : nullptr;
  }
  float* turns_at(std::int64_t t, std::int64_t strip, std::int64_t row) const {
    return turns_ + ((t * tile_strips_ + strip) * in_.batch + row) * strip_;
  }
  std::uint16_t* packed_row_at(std::int64_t t, std::int64_t row) const {
    return packs_ ? packed_rows_ + (t * packed_batch_ + row - first_packed_) * packed_row_ : nullptr;
  }
  std::uint16_t* packed_strip_at(std::int64_t strip) const {
    return packs_ ? packed_strips_ + strip * packed_row_ * strip_ : nullptr;
  }
  std::uint16_t* packed_transposed_at(std::int64_t strip) const {
    return packed_transposed_ ? packed_transposed_ + strip * packed_slope_ * strip_ : nullptr;
  }
  float* coefficients_at(std::int64_t t, std::int64_t strip) const {
    return coefficients_ + (t * tile_strips_ + strip) * 2 * in_.knots * strip_;
  }
  SigregSums own_sums(std::int64_t t, std::int64_t strip, std::int64_t c) const {
    const double* at = sums_ + (t * tile_strips_ + strip) * 2 * in_.knots * strip_ + c;
    return {at, at + in_.knots * strip_, strip_};
  }

  // One thread's own.
  struct Scratch {
    double* rows;                 // what SigregProjection::scratch asks for
    float* sums;                  // [2, K, strip]
    float* turns;                 // [kSigregRows, strip], where no gradient follows
    float* block;                 // [strip, strip], directions between two layouts
    float* slope;                 // [kDescentRows, slope_stride_]
    std::uint16_t* packed_slope;  // [kDescentRows, kSigregSlopeParts, packed tile columns], of tables that pack
  };
  static constexpr std::int64_t kSlopePadding = 16;  // rows a power of two apart would share cache sets

  const SigregInput& in_;
  ThreadPool& pool_;
  const SigregKernels& kernels_;
  const std::vector<SigregKnot> knots_;
  const bool descends_;
  const std::int64_t strip_;  // directions of a strip
  bool wide_ = false;         // projections in double
  bool packs_ = false;        // projections from packed operands
  std::int64_t tile_columns_ = 0, tile_strips_ = 0, group_steps_ = 0, chunks_ = 0, dim_strips_ = 0, slope_stride_ = 0;
  std::int64_t packed_row_ = 0, packed_slope_ = 0;  // elements of a packed embedding, of a packed row of slopes
  // Chunks and rows of a time step that are packed at once, and the first row that is packed now.
  std::int64_t pack_chunks_ = 0, packed_batch_ = 0, first_packed_ = 0;
  std::int64_t first_step_ = 0, steps_ = 0, first_column_ = 0;  // of the tile being worked on

  float* strips_ = nullptr;                     // [tile strips, D, strip]
  float* transposed_ = nullptr;                 // [D / strip, tile columns, strip]
  std::uint16_t* packed_rows_ = nullptr;        // [group, packed batch, 3, packed D], and padding
  std::uint16_t* packed_strips_ = nullptr;      // tile strips
  std::uint16_t* packed_transposed_ = nullptr;  // D / strip strips
  float* turns_ = nullptr;                      // [group, tile strips, B, strip]
  double* sums_ = nullptr;                      // [chunks, group, tile strips, 2, K, strip]
  float* coefficients_ = nullptr;               // [group, tile strips, 2, K, strip]
  double* statistics_ = nullptr;                // [group, tile strips]
  double* norms_ = nullptr;                     // [group * B / kPrepareRows]
  std::vector<Scratch> scratch_;
};

Sigreg::Sigreg(Isa isa, int threads) : pool_(threads), kernels_(sigreg_kernels(isa)) {}

double Sigreg::value(const SigregInput& input, float* gradient) {
  check_sigreg(input, 1);
  const double result = Pass(*this, input, gradient != nullptr).value(gradient);
  trim();
  return result;
}

void Sigreg::sums(const SigregInput& input, double* sums) {
  check_sigreg(input, 0);
  Pass(*this, input, false).sums(sums);
  trim();
}

void Sigreg::gradient(const SigregInput& input, const double* sums, double total, double scale, float* gradient) {
  check_sigreg(input, 0);
  check_sigreg_total(total);
  Pass(*this, input, true).gradient(sums, total, scale, gradient);
  trim();
}

void Sigreg::trim() {
  if (workspace_.bytes() > kKeptBytes) workspace_ = AlignedBlock();
}

void sigreg_directions(std::uint64_t seed, std::int64_t dim, std::int64_t num_proj, float* out) {
  const SigregKernels& kernels = sigreg_scalar();
  std::vector<float> strip(static_cast<std::size_t>(dim * kernels.columns));
  for (std::int64_t first = 0; first < num_proj; first += kernels.columns) {
    kernels.draw(seed, first, dim, strip.data());
    const std::int64_t columns = std::min(kernels.columns, num_proj - first);
    for (std::int64_t d = 0; d < dim; ++d) {
      std::copy_n(strip.data() + d * kernels.columns, columns, out + d * num_proj + first);
    }
  }
}

}  // namespace lewm::cpu
