#include "host_cuda.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define LEWM_HOST_ASAN 1
#else
#define LEWM_HOST_ASAN 0
#endif

// Of functions in which a fiber is entered or left for good: ThreadSanitizer counts calls and returns, and would take
// each of them for one call more. (To it all fibers are one thread, which they are.)
#define LEWM_SWITCHES_FIBERS __attribute__((no_sanitize("thread")))

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace lewm::cuda::host {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr int kLanes = 32;
constexpr std::size_t kSharedOfAll = 48 * 1024, kMostShared = 99 * 1024;  // that every GPU since sm_86 has

enum class State { ready, at_barrier, in_collective, done };

struct Copy {
  unsigned char* to;
  const unsigned char* from;
  int valid;
};

struct Fiber {
  ucontext_t context{};
  unsigned char* stack = nullptr;  // one of `stacks`
  void* sanitizer_stack = nullptr;
  State state = State::ready;
  std::string where;  // what it waits in
  // Its asynchronous copies: those not yet committed, then the committed groups, oldest first.
  std::vector<Copy> uncommitted;
  std::deque<std::vector<Copy>> groups;
};

// The collective that a warp is gathering for.
struct Gathering {
  std::string what;
  int arrived = 0;
  const void* inputs[kLanes];
  void* outputs[kLanes];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Gathering> warps;
  std::unique_ptr<unsigned char[]> shared_storage;
  unsigned char* shared = nullptr;
  std::size_t shared_bytes = 0;
  ucontext_t scheduler{};
  void* scheduler_stack = nullptr;
  const void* scheduler_stack_bottom = nullptr;
  std::size_t scheduler_stack_size = 0;
  int current = 0;
  const std::function<void()>* body = nullptr;
  std::exception_ptr failure;
};

Block* block_ = nullptr;
Schedule schedule_;

Fiber& self() { return block_->fibers[static_cast<std::size_t>(block_->current)]; }

void enter_fiber_stack() {
#if LEWM_HOST_ASAN
  __sanitizer_finish_switch_fiber(self().sanitizer_stack, &block_->scheduler_stack_bottom,
                                  &block_->scheduler_stack_size);
#endif
}

// Back to the scheduler until it resumes this fiber; `last` when it never will.
LEWM_SWITCHES_FIBERS void yield(bool last) {
  Fiber& fiber = self();
#if LEWM_HOST_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &fiber.sanitizer_stack, block_->scheduler_stack_bottom,
                                 block_->scheduler_stack_size);
#else
  (void)last;
#endif
  swapcontext(&fiber.context, &block_->scheduler);
  enter_fiber_stack();
  if (block_->failure) throw Fault("another thread of the block failed");
}

LEWM_SWITCHES_FIBERS void run_fiber() {
  enter_fiber_stack();
  try {
    (*block_->body)();
    if (!self().uncommitted.empty()) fault("cp.async: copies that were never committed at the end of the thread");
    if (!self().groups.empty()) fault("cp.async: groups that were never waited for at the end of the thread");
  } catch (...) {
    if (!block_->failure) block_->failure = std::current_exception();
  }
  self().state = State::done;
  yield(true);
}

void resume(int index) {
  block_->current = index;
  const unsigned x = static_cast<unsigned>(index) % blockDim.x;
  const unsigned y = static_cast<unsigned>(index) / blockDim.x % blockDim.y;
  threadIdx = {x, y, static_cast<unsigned>(index) / (blockDim.x * blockDim.y)};
#if LEWM_HOST_ASAN
  __sanitizer_start_switch_fiber(&block_->scheduler_stack, self().stack, kStackBytes);
#endif
  swapcontext(&block_->scheduler, &self().context);
#if LEWM_HOST_ASAN
  __sanitizer_finish_switch_fiber(block_->scheduler_stack, nullptr, nullptr);
#endif
}

std::vector<int> ordered(int count, Order order, std::uint32_t seed) {
  std::vector<int> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  if (order == Order::backward) std::reverse(indices.begin(), indices.end());
  if (order == Order::shuffled) std::shuffle(indices.begin(), indices.end(), std::mt19937(seed));
  return indices;
}

std::string describe_waiting() {
  std::string text;
  for (std::size_t i = 0; i < block_->fibers.size(); ++i) {
    const Fiber& fiber = block_->fibers[i];
    if (text.size() > 200) return text + ", ...";
    text += (text.empty() ? "thread " : ", thread ") + std::to_string(i) + " " +
            (fiber.state == State::done ? "has ended" : "waits in " + fiber.where);
  }
  return text;
}

// Everybody who is not done waits: opens the block barrier if all of them, and nobody ended, are there.
void open_barrier_or_fail() {
  for (const Fiber& fiber : block_->fibers) {
    if (fiber.state != State::at_barrier) fault("divergent barrier or collective: " + describe_waiting());
  }
  for (Fiber& fiber : block_->fibers) fiber.state = State::ready;
}

// The stack of a block's i-th fiber; blocks follow each other and use the same ones.
unsigned char* stack(std::size_t i) {
  static std::vector<std::unique_ptr<unsigned char[]>> stacks;
  while (stacks.size() <= i) stacks.push_back(std::make_unique_for_overwrite<unsigned char[]>(kStackBytes));
#if LEWM_HOST_ASAN
  __asan_unpoison_memory_region(stacks[i].get(), kStackBytes);  // what a failed fiber has left
#endif
  return stacks[i].get();
}

void start_fibers(std::size_t count) {
  block_->fibers = std::vector<Fiber>(count);
  block_->warps.assign((count + kLanes - 1) / kLanes, {});
  for (Fiber& fiber : block_->fibers) {
    fiber.stack = stack(static_cast<std::size_t>(&fiber - block_->fibers.data()));
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
  }
}

void run_block(std::uint32_t seed) {
  const int count = static_cast<int>(block_->fibers.size());
  for (std::uint32_t round = 0;; ++round) {
    bool progress = false, all_done = true;
    for (const int index : ordered(count, schedule_.threads, seed + round)) {
      if (block_->fibers[static_cast<std::size_t>(index)].state != State::ready) continue;
      resume(index);
      progress = true;
    }
    for (const Fiber& fiber : block_->fibers) all_done = all_done && fiber.state == State::done;
    if (all_done) return;
    if (block_->failure) {  // let the others unwind: their next collective throws
      for (Fiber& fiber : block_->fibers) {
        if (fiber.state != State::done) fiber.state = State::ready;
      }
      continue;
    }
    if (progress) continue;
    try {
      open_barrier_or_fail();
    } catch (...) {
      block_->failure = std::current_exception();
    }
  }
}

}  // namespace

Schedule& schedule() { return schedule_; }

void fault(const std::string& what) { throw Fault(what); }

void launch(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body) {
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024) fault(std::string(kernel) + ": " + std::to_string(threads) + " threads a block");
  if (shared_bytes > kMostShared)
    fault(std::string(kernel) + ": " + std::to_string(shared_bytes) + " bytes of shared memory");
  const auto blocks = static_cast<int>(grid.x * grid.y * grid.z);
  if (blocks == 0) fault(std::string(kernel) + ": an empty grid");
  for (const int index : ordered(blocks, schedule_.blocks, schedule_.seed)) {
    Block state;
    block_ = &state;
    blockDim = block;
    gridDim = grid;
    const auto linear = static_cast<unsigned>(index);
    blockIdx = {linear % grid.x, linear / grid.x % grid.y, linear / (grid.x * grid.y)};
    // Exactly sized behind the 128-byte alignment, so that AddressSanitizer sees the end; NaN in every float and bf16.
    state.shared_storage = std::make_unique_for_overwrite<unsigned char[]>(shared_bytes + 128);
    const auto address = reinterpret_cast<std::uintptr_t>(state.shared_storage.get());
    state.shared = state.shared_storage.get() + (128 - address % 128) % 128;
    state.shared_bytes = shared_bytes;
    std::memset(state.shared, 0xff, shared_bytes);
    state.body = &body;
    start_fibers(threads);
    run_block(schedule_.seed + linear * 7919u);
    block_ = nullptr;
    if (state.failure) {
      try {
        std::rethrow_exception(state.failure);
      } catch (const Fault& f) {
        throw Fault(std::string(kernel) + ", block " + std::to_string(index) + ": " + f.what());
      }
    }
  }
}

namespace {

std::map<std::pair<int, const void*>, std::size_t> loaded_kernels;  // by device; the shared memory that they may have

}  // namespace

void loaded(const void* kernel, std::size_t shared_bytes) {
  refuse_in_capture("loading a kernel");
  if (shared_bytes > kMostShared)
    fault("a kernel asks for " + std::to_string(shared_bytes) + " bytes of shared memory");
  loaded_kernels[{current_device(), kernel}] = shared_bytes;
}

void enqueue_launch(cudaStream_t stream, const char* kernel, const void* address, dim3 grid, dim3 block,
                    std::size_t bytes, std::function<void()> body) {
  ++counts().kernels;
  const auto found = loaded_kernels.find({current_device(), address});
  if (found == loaded_kernels.end() && captures(stream)) {
    fault(std::string(kernel) + ": not loaded before a graph is captured");
  }
  if (bytes > kSharedOfAll && (found == loaded_kernels.end() || found->second < bytes)) {
    fault(std::string(kernel) + ": more than 48 KiB of shared memory, not asked for");
  }
  enqueue(stream, [=, body = std::move(body)] { launch(kernel, grid, block, bytes, body); });
}

unsigned char* shared_memory() { return block_->shared; }
std::size_t shared_bytes() { return block_->shared_bytes; }
int lane() { return block_->current % kLanes; }

void check_aligned(const void* pointer, std::size_t alignment, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment) fault(std::string(what) + ": misaligned address");
}

void check_shared(const void* pointer, std::size_t bytes, const char* what) {
  const auto* p = static_cast<const unsigned char*>(pointer);
  if (p < block_->shared || p + bytes > block_->shared + block_->shared_bytes) {
    fault(std::string(what) + ": outside shared memory");
  }
}

void warp_collective(const char* what, const void* input, std::size_t, void* output, Combine combine) {
  if (block_->fibers.size() % kLanes) fault(std::string(what) + ": a block of ragged warps");
  Gathering& warp = block_->warps[static_cast<std::size_t>(block_->current / kLanes)];
  if (warp.arrived && warp.what != what) fault(std::string("lanes meet in ") + warp.what + " and " + what);
  warp.what = what;
  warp.inputs[lane()] = input;
  warp.outputs[lane()] = output;
  if (++warp.arrived < kLanes) {
    self().state = State::in_collective;
    self().where = what;
    yield(false);
    return;  // the last lane has filled `output`
  }
  warp.arrived = 0;
  combine(warp.inputs, warp.outputs);
  const std::size_t first = static_cast<std::size_t>(block_->current / kLanes) * kLanes;
  for (std::size_t i = first; i < first + kLanes; ++i) block_->fibers[i].state = State::ready;
}

}  // namespace lewm::cuda::host

namespace lewm::cuda {

using host::Block;
using host::fault;

void sync_block() {
  host::self().state = host::State::at_barrier;
  host::self().where = "sync_block";
  host::yield(false);
}

void sync_warp() {
  const char nothing = 0;
  char output;
  host::warp_collective("sync_warp", &nothing, 1, &output, [](const void* const*, void* const*) {});
}

std::uint32_t ballot(bool vote) {
  std::uint32_t output;
  host::warp_collective("ballot", &vote, sizeof vote, &output,
                        [](const void* const inputs[32], void* const outputs[32]) {
                          std::uint32_t votes = 0;
                          for (int i = 0; i < 32; ++i)
                            votes |= std::uint32_t{*static_cast<const bool*>(inputs[i])} << i;
                          for (int i = 0; i < 32; ++i) *static_cast<std::uint32_t*>(outputs[i]) = votes;
                        });
  return output;
}

void cp_async16(void* shared, const void* global, int valid) {
  host::check_aligned(shared, 16, "cp.async to shared memory");
  host::check_aligned(global, 16, "cp.async from global memory");
  host::check_shared(shared, 16, "cp.async");
  if (valid < 0 || valid > 16) fault("cp.async: " + std::to_string(valid) + " valid bytes");
  std::memset(shared, 0xff, 16);
  host::self().uncommitted.push_back(
      {static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global), valid});
}

void cp_async_commit() {
  host::self().groups.push_back(std::move(host::self().uncommitted));
  host::self().uncommitted.clear();
}

// The copies of the groups that must have arrived happen here, at the last moment that the contract allows.
void cp_async_wait_for(int pending) {
  auto& groups = host::self().groups;
  while (groups.size() > static_cast<std::size_t>(pending)) {
    for (const host::Copy& copy : groups.front()) {
      std::memset(copy.to, 0, 16);
      if (copy.valid) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.valid));
    }
    groups.pop_front();
  }
}

namespace {

struct Fragments {
  std::uint32_t r[4];
};

std::uint16_t half_at(const void* row, int column) {
  std::uint16_t value;
  std::memcpy(&value, static_cast<const unsigned char*>(row) + 2 * column, sizeof value);
  return value;
}

template <bool transposed>
void combine_ldmatrix(const void* const inputs[32], void* const outputs[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      std::uint32_t pair = 0;
      for (int j = 0; j < 2; ++j) {
        const int row = transposed ? 2 * (lane % 4) + j : lane / 4;
        const int column = transposed ? lane / 4 : 2 * (lane % 4) + j;
        const void* address = *static_cast<const void* const*>(inputs[matrix * 8 + row]);
        pair |= std::uint32_t{half_at(address, column)} << (16 * j);
      }
      static_cast<Fragments*>(outputs[lane])->r[matrix] = pair;
    }
  }
}

template <bool transposed>
void ldmatrix(std::uint32_t (&r)[4], const void* row) {
  host::check_aligned(row, 16, "ldmatrix");
  host::check_shared(row, 16, "ldmatrix");
  Fragments output;
  host::warp_collective(transposed ? "ldmatrix.trans" : "ldmatrix", &row, sizeof row, &output,
                        combine_ldmatrix<transposed>);
  std::copy(output.r, output.r + 4, r);
}

struct Product {
  float d[4];
  std::uint32_t a[4];
  std::uint32_t b[2];
};

float half(std::uint32_t pair, int index) { return __uint_as_float((pair >> (16 * index) & 0xffffu) << 16); }

// PTX ISA, "Matrix fragments for mma.m16n8k16", 16-bit types: with group = lane / 4 and t = lane % 4,
//   a[i] holds row group + 8 (i % 2), columns 2 t + {0, 1} + 8 (i / 2);
//   b[i] holds rows 2 t + {0, 1} + 8 i of column group;
//   d[i] is row group + 8 (i / 2), column 2 t + i % 2.
void combine_mma(const void* const inputs[32], void* const outputs[32]) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& in = *static_cast<const Product*>(inputs[lane]);
    const int group = lane / 4, t = lane % 4;
    for (int j = 0; j < 2; ++j) {
      for (int i = 0; i < 4; ++i) a[group + 8 * (i % 2)][2 * t + j + 8 * (i / 2)] = half(in.a[i], j);
      for (int i = 0; i < 2; ++i) b[2 * t + j + 8 * i][group] = half(in.b[i], j);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& in = *static_cast<const Product*>(inputs[lane]);
    auto* out = static_cast<float*>(outputs[lane]);
    for (int i = 0; i < 4; ++i) {
      float sum = in.d[i];
      for (int k = 0; k < 16; ++k) sum += a[lane / 4 + 8 * (i / 2)][k] * b[k][2 * (lane % 4) + i % 2];
      out[i] = sum;
    }
  }
}

}  // namespace

std::uint32_t pack_bf16(float low, float high) {
  const auto rounded = [](float value) {
    const std::uint32_t bits = __float_as_uint(value);
    if (std::isnan(value)) return std::uint32_t{0x7fff};  // as the hardware makes of every NaN
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
}

void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) { ldmatrix<false>(r, row); }
void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row) { ldmatrix<true>(r, row); }

void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  const Product input{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  float output[4];
  host::warp_collective("mma", &input, sizeof input, output, combine_mma);
  std::copy(output, output + 4, d);
}

}  // namespace lewm::cuda
