#include "kernel_log.hpp"

#include <cpuid.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include "service.hpp"

namespace selfcheck {
namespace {

// One record of /dev/kmsg a read (Documentation/ABI/testing/dev-kmsg): "level,sequence,time,flags;text\n",
// and lines of properties after it.
class KernelLogReader {
  public:
    KernelLogReader() : descriptor_(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {}
    KernelLogReader(const KernelLogReader&) = delete;
    KernelLogReader& operator=(const KernelLogReader&) = delete;
    ~KernelLogReader() { close(descriptor_); }

    // The text of the next record; false when there is none yet.
    bool next(std::string& text) {
        // EPIPE: records were overwritten before we came to them; the next read goes on with the oldest there
        // is.
        ssize_t length = 0;
        do {
            length = read(descriptor_, buffer_.data(), buffer_.size());
        } while (length < 0 && errno == EPIPE);
        if (length <= 0) {
            return false;
        }
        const std::string_view record(buffer_.data(), static_cast<std::size_t>(length));
        const std::size_t begin = record.find(';');
        if (begin == std::string_view::npos) {
            text.clear();
        } else {
            text = record.substr(begin + 1, record.find('\n') - begin - 1);
        }
        return true;
    }

  private:
    int descriptor_;
    std::array<char, 8192> buffer_ = {};
};

std::string current_clocksource() {
    std::string name = "unknown";
    std::ifstream("/sys/devices/system/clocksource/clocksource0/current_clocksource") >> name;
    return name;
}

// Documentation/virt/kvm/x86/cpuid.rst: what KVM offers a guest.
bool offered(unsigned bit) {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    __cpuid(0x40000001, eax, ebx, ecx, edx);
    return (eax >> bit & 1) != 0;
}

// All vCPUs together, in USER_HZ ticks: the eighth number of the first line (proc(5)).
uint64_t steal_ticks() {
    std::ifstream file("/proc/stat");
    std::string word;
    file >> word;
    uint64_t value = 0;
    for (int column = 0; column < 8; ++column) {
        file >> value;
    }
    return value;
}

// Judges what the kernel says. What it says of clock sources while it boots is no complaint; later it is.
class KernelLog : public Service {
  public:
    void start(const guest::Parameters&, guest::Fields& ready) override {
        clocksource_ = current_clocksource();
        ready.number("steal", offered(5)).number("pv_eoi", offered(6));
        ready.text("clock", clocksource_.c_str())
            .number("cpus", static_cast<uint64_t>(sysconf(_SC_NPROCESSORS_ONLN)));
        read_on(false);
    }

    void report(guest::Fields& counters) const override {
        counters.number("steal_ms", steal_ticks() * 1000 / static_cast<uint64_t>(sysconf(_SC_CLK_TCK)));
    }

    bool verify(guest::Fields& findings) override {
        read_on(true);
        if (!complaint_.empty()) {
            findings.text("reason", "kernel_complains").text("line", complaint_.c_str());
            return false;
        }
        const std::string now = current_clocksource();
        if (now != clocksource_) {
            findings.text("reason", "clocksource_changed")
                .text("want", clocksource_.c_str())
                .text("got", now.c_str());
            return false;
        }
        return true;
    }

  private:
    static bool complains(const std::string& text, bool booted) {
        constexpr std::array kComplaints = {"soft lockup",
                                            "hard LOCKUP",
                                            "blocked for more than",
                                            "rcu_sched self-detected",
                                            "rcu: INFO",
                                            "BUG:",
                                            "WARNING:",
                                            "I/O error",
                                            "Call Trace:",
                                            "EXT4-fs error"};
        for (const char* complaint : kComplaints) {
            if (text.find(complaint) != std::string::npos) {
                return true;
            }
        }
        // Its clock watchdog came late, because a pause was long, and judged nothing.
        if (text.find("Long readout interval, skipping watchdog check") != std::string::npos) {
            return false;
        }
        return booted &&
               (text.find("clocksource") != std::string::npos || text.find("unstable") != std::string::npos);
    }

    void read_on(bool booted) {
        std::string text;
        while (reader_.next(text)) {
            if (complaint_.empty() && complains(text, booted)) {
                complaint_ = text;
                for (char& c : complaint_) {
                    c = c == ' ' || c == '=' ? '_' : c;  // one word, as the protocol wants it
                }
            }
        }
    }

    KernelLogReader reader_;
    std::string clocksource_;
    std::string complaint_;  // the first
};

}  // namespace

uint64_t kernel_tsc_khz() {
    KernelLogReader reader;
    std::string text;
    uint64_t found = 0;
    while (reader.next(text)) {
        unsigned mhz = 0;
        unsigned khz = 0;
        // Of the CPU, and when the TSC's own frequency is known otherwise, a second time of the TSC: the last
        // counts.
        if (std::sscanf(text.c_str(), "tsc: Detected %u.%3u MHz", &mhz, &khz) == 2) {
            found = uint64_t{mhz} * 1000 + khz;
        }
    }
    return found;
}

std::unique_ptr<Service> make_kernel_log() {
    return std::make_unique<KernelLog>();
}

}  // namespace selfcheck
