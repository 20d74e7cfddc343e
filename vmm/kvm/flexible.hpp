// A struct of the KVM API that ends in an array whose length the header counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vmm {

// Zeroed. `Header` ends in a flexible array of `Entry`.
template <typename Header, typename Entry>
class Flexible {
  public:
    explicit Flexible(std::size_t count)
        : words_((sizeof(Header) + count * sizeof(Entry) + sizeof(std::uint64_t) - 1) /
                 sizeof(std::uint64_t)) {}

    Header& header() { return *reinterpret_cast<Header*>(words_.data()); }
    // Not through Header's own array: it has length 0 there, which bounds checks take at its word.
    Entry& operator[](std::size_t i) {
        return reinterpret_cast<Entry*>(reinterpret_cast<std::byte*>(words_.data()) + sizeof(Header))[i];
    }

  private:
    std::vector<std::uint64_t> words_;
};

}  // namespace vmm
