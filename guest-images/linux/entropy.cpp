// The virtio entropy device: every check reads from it.

#include <array>
#include <cerrno>
#include <fstream>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "runtime/guest.hpp"
#include "service.hpp"

namespace selfcheck {
namespace {

class Entropy : public Service {
  public:
    void start(const guest::Parameters&, guest::Fields& ready) override {
        std::string source;
        std::ifstream("/sys/class/misc/hw_random/rng_current") >> source;
        present_ = source.starts_with("virtio_rng");
        ready.number("rng", present_ ? 1 : 0);
    }

    void report(guest::Fields& counters) const override {
        if (present_) {
            counters.number("rng_bytes", bytes_);
        }
    }

    bool verify(guest::Fields& findings) override {
        if (!present_) {
            return true;
        }
        std::array<char, 64> bytes = {};
        const int device = open("/dev/hwrng", O_RDONLY | O_CLOEXEC);
        const ssize_t length = device < 0 ? -1 : read(device, bytes.data(), bytes.size());
        const int error = errno;
        close(device);
        if (length <= 0) {
            findings.text("reason", "no_entropy").signed_number("errno", error);
            return false;
        }
        bytes_ += static_cast<uint64_t>(length);
        // A device that says it wrote and did not leaves zeros.
        if (bytes == std::array<char, 64>{}) {
            findings.text("reason", "entropy_of_zeros").signed_number("bytes", length);
            return false;
        }
        return true;
    }

  private:
    bool present_ = false;
    uint64_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<Service> make_entropy() {
    return std::make_unique<Entropy>();
}

}  // namespace selfcheck
