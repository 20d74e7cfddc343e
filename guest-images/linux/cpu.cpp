// Busy threads. Each repeats one computation in integer and vector registers that must give the same result
// every time.

#include <atomic>
#include <cmath>
#include <thread>

#include "runtime/guest.hpp"
#include "runtime/splitmix.hpp"
#include "service.hpp"

namespace selfcheck {
namespace {

struct Result {
    uint64_t integer = 0;
    double real = 0;

    bool operator==(const Result&) const = default;
};

Result compute() {
    constexpr int kSteps = 100'000;
    static const volatile uint64_t seed = 1;  // so that the compiler cannot know the result
    guest::SplitMix numbers(seed);
    Result result;
    for (int step = 0; step < kSteps; ++step) {
        const uint64_t number = numbers.next();
        result.integer = (result.integer ^ number) * 0x100000001b3;
        result.real = std::sqrt(result.real + static_cast<double>(number >> 40));
    }
    return result;
}

class Cpu : public Service {
  public:
    void start(const guest::Parameters& parameters, guest::Fields& ready) override {
        const uint64_t threads = parameters.number("godwit.cpu", 0);
        ready.number("cpu", threads);
        for (uint64_t thread = 0; thread < threads; ++thread) {
            std::thread([this] { run(); }).detach();
        }
    }

    void report(guest::Fields& counters) const override { counters.number("cpu_rounds", rounds_); }

    // A wrong result has ended the guest when it was found.
    bool verify(guest::Fields&) override { return true; }

  private:
    void run() {
        const Result want = compute();
        for (;; ++rounds_) {
            if (compute() != want) {
                guest::fail(guest::Fields().text("reason", "computed_otherwise").number("round", rounds_));
            }
        }
    }

    std::atomic<uint64_t> rounds_ = 0;
};

}  // namespace

std::unique_ptr<Service> make_cpu() {
    return std::make_unique<Cpu>();
}

}  // namespace selfcheck
