#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace selfcheck {

// `mark` and `proof` of the line protocol (guest-images/README.md): pages that the peer can know only from
// this memory.
class MarkedPages {
  public:
    static constexpr std::size_t kPages = 64;

    struct Proof {
        bool intact = true;
        uint64_t hash = 0;
    };

    void mark(uint64_t seed);
    bool marked() const { return !pages_.empty(); }
    uint64_t seed() const { return seed_; }
    Proof proof() const;

  private:
    using Page = std::array<uint64_t, 512>;

    uint64_t seed_ = 0;
    std::vector<Page> pages_;
};

}  // namespace selfcheck
