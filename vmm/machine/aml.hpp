// A writer for the few AML terms that a table of fixed devices needs (ACPI 6.4, chapter 20), and for resource
// descriptors (6.4). Pure.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "vmm/base/bytes.hpp"

namespace vmm {

// Resource descriptors one after another.
class AmlResources {
  public:
    const Bytes& bytes() const { return bytes_; }

    void memory32_fixed(std::uint32_t base, std::uint32_t size);
    // A range of ports decoded with 16 bits.
    void io(std::uint16_t base, std::uint8_t count);
    enum class Trigger : std::uint8_t { level, edge };
    // Active high, exclusive.
    void interrupt(std::uint32_t gsi, Trigger trigger);

  private:
    Bytes bytes_;
};

// Terms one after another; those with terms inside take these as an AmlWriter's bytes.
class AmlWriter {
  public:
    const Bytes& bytes() const { return bytes_; }

    // `name`: one segment of four characters, with a backslash in front for one in the root.
    void scope(std::string_view name, const AmlWriter& terms);
    void device(std::string_view name, const AmlWriter& terms);
    void name(std::string_view name, std::uint64_t value);
    void name(std::string_view name, std::string_view value);
    void name_package(std::string_view name, std::initializer_list<std::uint64_t> values);
    // A buffer of resource descriptors, with their end tag.
    void name_resources(std::string_view name, const AmlResources& resources);

  private:
    void name_string(std::string_view name);
    void integer(std::uint64_t value);
    // The length of what follows, itself included, and what follows.
    void package(const Bytes& content);

    Bytes bytes_;
};

}  // namespace vmm
