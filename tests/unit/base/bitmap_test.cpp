#include "vmm/base/bitmap.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "tests/unit/base/death.hpp"

using vmm::Bitmap;

namespace {

using Model = std::vector<bool>;

std::size_t model_count(const Model& model, std::size_t first, std::size_t count) {
    return static_cast<std::size_t>(std::count(model.begin() + static_cast<std::ptrdiff_t>(first),
                                               model.begin() + static_cast<std::ptrdiff_t>(first + count),
                                               true));
}

Bitmap::Run model_run(const Model& model, std::size_t from, std::size_t end) {
    while (from < end && !model[from]) {
        ++from;
    }
    std::size_t stop = from;
    while (stop < end && model[stop]) {
        ++stop;
    }
    return stop == from ? Bitmap::Run{} : Bitmap::Run{from, stop - from};
}

bool same(const Bitmap& bitmap, const Model& model) {
    for (std::size_t i = 0; i < model.size(); ++i) {
        if (bitmap.test(i) != model[i]) {
            return false;
        }
    }
    return bitmap.count() == model_count(model, 0, model.size());
}

}  // namespace

TEST_CASE("merged words never set a bit past the end of the bitmap", "[base]") {
    for (const std::size_t bits : {1u, 7u, 63u, 64u, 65u, 127u, 128u, 129u}) {
        CAPTURE(bits);
        Bitmap bitmap{bits};
        // One word more than the bitmap has, as a log of a larger region would bring.
        const std::vector<std::uint64_t> ones(bits / 64 + 2, ~std::uint64_t{0});
        bitmap.merge_words(0, ones);
        CHECK(bitmap.count() == bits);
        CHECK(bitmap.next_run(0, bits).count == bits);
        CHECK(bitmap.words().size() == (bits + 63) / 64);
    }
}

TEST_CASE("merged words land at their first bit and keep what was set", "[base]") {
    Bitmap bitmap{200};
    bitmap.set(3);
    const std::uint64_t words[] = {0b101, std::uint64_t{1} << 63};
    bitmap.merge_words(64, words);
    CHECK(bitmap.count() == 4);
    CHECK((bitmap.test(3) && bitmap.test(64) && bitmap.test(66) && bitmap.test(191)));
    bitmap.merge_words(256, words);
    CHECK(bitmap.count() == 4);
    CHECK(tests::aborts([&] { bitmap.merge_words(63, words); }));
}

TEST_CASE("an empty bitmap has no bits, no runs and no words", "[base]") {
    Bitmap bitmap{0};
    CHECK(bitmap.count() == 0);
    CHECK(bitmap.words().empty());
    CHECK(bitmap.next_run(0, 0).count == 0);
    bitmap.merge_words(0, {});
    bitmap.set_range(0, 0);
    CHECK(!bitmap.any_in_range(0, 0));
}

TEST_CASE("a run crosses words and stops at the end asked for", "[base]") {
    Bitmap bitmap{300};
    bitmap.set_range(60, 140);
    CHECK(bitmap.next_run(0, 300).first == 60);
    CHECK(bitmap.next_run(0, 300).count == 140);
    CHECK(bitmap.next_run(100, 130).first == 100);
    CHECK(bitmap.next_run(100, 130).count == 30);
    CHECK(bitmap.next_run(0, 60).count == 0);
    CHECK(bitmap.next_run(200, 300).count == 0);
    CHECK(bitmap.next_run(130, 100).count == 0);
}

TEST_CASE("joining bitmaps of unequal size aborts rather than losing a tail", "[base]") {
    Bitmap bitmap{128};
    CHECK(tests::aborts([&] { bitmap.merge(Bitmap{127}); }));
    CHECK(tests::aborts([&] { bitmap.merge(Bitmap{129}); }));
    CHECK(!tests::aborts([&] { bitmap.merge(Bitmap{128}); }));
}

TEST_CASE("a bit or range outside of the bitmap aborts", "[base]") {
    Bitmap bitmap{65};
    const std::size_t huge = ~std::size_t{0};
    CHECK(tests::aborts([&] { bitmap.set(65); }));
    CHECK(tests::aborts([&] { bitmap.clear(65); }));
    CHECK(tests::aborts([&] { (void)bitmap.test(65); }));
    CHECK(tests::aborts([&] { bitmap.set_range(64, 2); }));
    CHECK(tests::aborts([&] { bitmap.clear_range(1, huge); }));
    CHECK(tests::aborts([&] { (void)bitmap.count_range(66, 0); }));
    CHECK(tests::aborts([&] { (void)bitmap.any_in_range(2, huge); }));
    CHECK(tests::aborts([&] { (void)bitmap.next_run(0, 66); }));
}

TEST_CASE("ranges, counts, merges and runs agree with a naive model", "[base]") {
    std::mt19937 random{1};
    const auto below = [&](std::size_t limit) { return std::size_t{random()} % limit; };
    for (int round = 0; round < 300; ++round) {
        const std::size_t bits = 1 + below(400);
        Bitmap bitmap{bits};
        Model model(bits);
        for (int step = 0; step < 40; ++step) {
            const std::size_t first = below(bits + 1);
            const std::size_t count = below(bits - first + 1);
            const auto begin = model.begin() + static_cast<std::ptrdiff_t>(first);
            switch (below(5)) {
                case 0:
                    bitmap.set_range(first, count);
                    std::fill_n(begin, count, true);
                    break;
                case 1:
                    bitmap.clear_range(first, count);
                    std::fill_n(begin, count, false);
                    break;
                case 2:
                    bitmap.set(first % bits);
                    model[first % bits] = true;
                    break;
                case 3:
                    bitmap.clear(first % bits);
                    model[first % bits] = false;
                    break;
                default:
                    Bitmap other{bits};
                    other.set_range(first, count);
                    bitmap.merge(other);
                    std::fill_n(begin, count, true);
            }
            REQUIRE(same(bitmap, model));
            REQUIRE(bitmap.count_range(first, count) == model_count(model, first, count));
            REQUIRE(bitmap.any_in_range(first, count) == (model_count(model, first, count) != 0));
            const Bitmap::Run run = bitmap.next_run(first, first + count);
            const Bitmap::Run expected = model_run(model, first, first + count);
            REQUIRE((run.first == expected.first && run.count == expected.count));
        }
        // All runs together are exactly the set bits.
        Model rebuilt(bits);
        bitmap.for_each_run(0, bits, [&](std::size_t first, std::size_t count) {
            REQUIRE(count != 0);
            std::fill_n(rebuilt.begin() + static_cast<std::ptrdiff_t>(first), count, true);
        });
        REQUIRE(rebuilt == model);
    }
}
