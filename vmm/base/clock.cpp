#include "vmm/base/clock.hpp"

namespace vmm {

namespace {

class RealClock final : public Clock {
  public:
    TimePoint now() const override { return std::chrono::steady_clock::now(); }
    std::int64_t realtime_ns() const override {
        return std::chrono::duration_cast<std::chrono::nanoseconds>(
                   std::chrono::system_clock::now().time_since_epoch())
            .count();
    }
};

}  // namespace

const Clock& real_clock() {
    static const RealClock clock;
    return clock;
}

}  // namespace vmm
