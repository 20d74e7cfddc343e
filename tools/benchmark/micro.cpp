// micro: what the parts of a migration take that are computed for each page, frame or round. Google
// Benchmark;
// --help says how to choose, repeat and write JSON.
#include <benchmark/benchmark.h>

#include <random>

#include "migration/frame.hpp"
#include "migration/page_table.hpp"
#include "migration/policy.hpp"
#include "vmm/base/bitmap.hpp"

namespace {

using vmm::kPageSize;

constexpr std::uint64_t kBitmapPages = 8ULL << 18;  // 8 GiB

vmm::Bytes random_bytes(std::size_t size) {
    std::mt19937_64 random{1};
    vmm::Bytes bytes(size);
    for (std::byte& byte : bytes) {
        byte = static_cast<std::byte>(random());
    }
    return bytes;
}

void count_pages(benchmark::State& state, std::uint64_t pages) {
    state.SetItemsProcessed(static_cast<std::int64_t>(pages) * state.iterations());
    state.SetBytesProcessed(static_cast<std::int64_t>(pages * kPageSize) * state.iterations());
}

// Walks the runs of a dirty bitmap of 8 GiB of which one page of `range` is dirty.
void bitmap_runs(benchmark::State& state) {
    std::mt19937_64 random{1};
    vmm::Bitmap bitmap{kBitmapPages};
    for (std::uint64_t i = 0; i < kBitmapPages / static_cast<std::uint64_t>(state.range(0)); ++i) {
        bitmap.set(random() % kBitmapPages);
    }
    std::uint64_t pages = 0;
    for (auto _ : state) {
        for (auto run = bitmap.next_run(0, kBitmapPages); run.count != 0;
             run = bitmap.next_run(run.first + run.count, kBitmapPages)) {
            pages += run.count;
        }
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(pages));
}
BENCHMARK(bitmap_runs)->Arg(1)->Arg(16)->Arg(1024)->Arg(1 << 16)->Unit(benchmark::kMicrosecond);

void zero_scan(benchmark::State& state) {
    const vmm::Bytes pages(256 * kPageSize);
    for (auto _ : state) {
        for (std::size_t at = 0; at < pages.size(); at += kPageSize) {
            benchmark::DoNotOptimize(migration::is_zero(std::span{pages}.subspan(at, kPageSize)));
        }
    }
    count_pages(state, 256);
}
BENCHMARK(zero_scan);

// Of `range` pages: few stay in the caches, many come from memory.
void hashing(benchmark::State& state) {
    const vmm::Bytes pages = random_bytes(static_cast<std::size_t>(state.range(0)) * kPageSize);
    const migration::PageHasher hasher{migration::Secret{1, 2, 3}};
    for (auto _ : state) {
        for (std::size_t at = 0; at < pages.size(); at += kPageSize) {
            benchmark::DoNotOptimize(hasher.entry_for(std::span{pages}.subspan(at, kPageSize)));
        }
    }
    count_pages(state, static_cast<std::uint64_t>(state.range(0)));
}
BENCHMARK(hashing)->Arg(16)->Arg(256)->Arg(1 << 15);

// A Pages message of so many extents, there and back; its payload is not touched.
void frame_codec(benchmark::State& state) {
    migration::Pages pages;
    for (std::int64_t i = 0; i < state.range(0); ++i) {
        pages.extents.push_back({migration::ExtentKind::zero, static_cast<std::uint64_t>(2 * i), 1});
    }
    const migration::Message message{pages};
    for (auto _ : state) {
        const vmm::Bytes frame = migration::encode_frame(message, 0);
        const auto raw = std::span{frame}.first<migration::kFrameHeaderBytes>();
        const auto header = migration::decode_header(raw, std::size_t{2} << 20);
        benchmark::DoNotOptimize(
            migration::decode_body(*header, std::span{frame}.subspan(migration::kFrameHeaderBytes)));
    }
    state.SetItemsProcessed(state.range(0) * state.iterations());
}
BENCHMARK(frame_codec)->Arg(1)->Arg(16)->Arg(migration::Pages::kMaxExtents);

// After so many rounds that shrink by a tenth each.
void decide(benchmark::State& state) {
    std::vector<migration::Round> rounds;
    std::uint64_t owed = 1 << 20;
    for (std::int64_t i = 0; i < state.range(0); ++i) {
        migration::Round round;
        round.duration = std::chrono::milliseconds{100};
        round.data_pages = owed;
        round.owed_after = owed = owed * 9 / 10;
        rounds.push_back(round);
    }
    const migration::Limits limits;
    const migration::FixedCosts costs;
    for (auto _ : state) {
        benchmark::DoNotOptimize(migration::decide(limits, rounds, costs));
    }
}
BENCHMARK(decide)->Arg(1)->Arg(10)->Arg(100);

}  // namespace

BENCHMARK_MAIN();
