// Text made from the same field lists: the schema of a type (golden files), the values of an object, and the
// first field in which two objects differ (tests and error messages).
#pragma once

#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "vmm/base/bytes.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

class Describer {
  public:
    template <ScalarField T>
    void field(const char* name, const T&) {
        line(name, scalar<T>());
    }
    template <ScalarField T, std::size_t N>
    void field(const char* name, const std::array<T, N>&) {
        line(name, fmt::format("{}[{}]", scalar<T>(), N));
    }
    template <typename E>
    void enumeration(const char* name, const E&, E last) {
        line(name, fmt::format("enum 0..{}", static_cast<unsigned>(last)));
    }
    template <RawField T>
    void raw(const char* name, const T& value) {
        line(name, fmt::format("struct of {} bytes", sizeof value));
    }
    void bytes(const char* name, const Bytes&, std::size_t limit) {
        line(name, fmt::format("bytes <= {}", limit));
    }
    void text(const char* name, const std::string&, std::size_t limit) {
        line(name, fmt::format("text <= {}", limit));
    }
    template <typename T>
    void list(const char* name, const std::vector<T>&, std::size_t limit) {
        if constexpr (ScalarField<T>) {
            line(name, fmt::format("list <= {} of {}", limit, scalar<T>()));
        } else {
            line(name, fmt::format("list <= {} of", limit));
            nested(T{});
        }
    }
    template <typename T>
    void part(const char* name, const T& value) {
        line(name, "struct");
        nested(value);
    }
    bool since(std::uint16_t version) {
        out_ += fmt::format("{}since {}\n", indent_, version);
        return true;
    }
    void check(bool, const char* text) { out_ += fmt::format("{}check {}\n", indent_, text); }

    std::string take() { return std::move(out_); }

  private:
    template <ScalarField T>
    static std::string scalar() {
        return std::same_as<T, bool> ? "bool" : fmt::format("u{}", sizeof(T) * 8);
    }
    template <typename T>
    void nested(const T& value) {
        indent_ += "    ";
        T::visit(value, *this);
        indent_.resize(indent_.size() - 4);
    }
    void line(const char* name, const std::string& type) {
        out_ += fmt::format("{}{}: {}\n", indent_, name, type);
    }

    std::string out_;
    std::string indent_ = "    ";
};

// The schema of T, one line a field: what tests/golden holds.
template <State T>
std::string describe() {
    Describer describer;
    const T value{};
    T::visit(value, describer);
    return fmt::format("{} version {} (reads from {})\n{}", T::id.name, T::id.current, T::id.oldest,
                       describer.take());
}

struct FieldValue {
    std::string path;
    std::string value;
    bool operator==(const FieldValue&) const = default;
};

// The values of an object as text, in field order.
class Dumper {
  public:
    template <ScalarField T>
    void field(const char* name, const T& value) {
        add(name, fmt::format("{:#x}", static_cast<std::uint64_t>(value)));
    }
    template <ScalarField T, std::size_t N>
    void field(const char* name, const std::array<T, N>& values) {
        for (std::size_t i = 0; i < N; ++i) {
            add(fmt::format("{}[{}]", name, i), fmt::format("{:#x}", static_cast<std::uint64_t>(values[i])));
        }
    }
    template <typename E>
    void enumeration(const char* name, const E& value, E) {
        add(name, fmt::format("{}", static_cast<unsigned>(value)));
    }
    template <RawField T>
    void raw(const char* name, const T& value) {
        hex(name, bytes_of(value));
    }
    void bytes(const char* name, const Bytes& value, std::size_t) {
        add(fmt::format("{}.count", name), fmt::format("{}", value.size()));
        hex(name, value);
    }
    void text(const char* name, const std::string& value, std::size_t) { add(name, value); }
    template <typename T>
    void list(const char* name, const std::vector<T>& values, std::size_t) {
        add(fmt::format("{}.count", name), fmt::format("{}", values.size()));
        for (std::size_t i = 0; i < values.size(); ++i) {
            const std::string element = fmt::format("{}[{}]", name, i);
            if constexpr (ScalarField<T>) {
                field(element.c_str(), values[i]);
            } else {
                part(element.c_str(), values[i]);
            }
        }
    }
    template <typename T>
    void part(const char* name, const T& value) {
        const std::size_t length = prefix_.size();
        prefix_ += fmt::format("{}.", name);
        T::visit(value, *this);
        prefix_.resize(length);
    }
    bool since(std::uint16_t) { return true; }
    void check(bool, const char*) {}

    std::vector<FieldValue> take() { return std::move(values_); }

  private:
    void add(const std::string& name, std::string value) {
        values_.push_back({prefix_ + name, std::move(value)});
    }
    void hex(const char* name, std::span<const std::byte> bytes) {
        std::string text;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            // One entry for 8 bytes, so that a difference has an offset.
            text += fmt::format("{:02x}", static_cast<unsigned>(bytes[i]));
            if (i % 8 == 7 || i + 1 == bytes.size()) {
                add(fmt::format("{}+{}", name, i / 8 * 8), std::exchange(text, {}));
            }
        }
    }

    std::vector<FieldValue> values_;
    std::string prefix_;
};

template <typename T>
std::vector<FieldValue> dump(const T& value) {
    Dumper dumper;
    T::visit(value, dumper);
    return dumper.take();
}

// "field: a against b" for the first field that differs; empty when all are equal.
template <typename T>
std::string first_difference(const T& a, const T& b) {
    const std::vector<FieldValue> left = dump(a);
    const std::vector<FieldValue> right = dump(b);
    for (std::size_t i = 0; i < left.size() && i < right.size(); ++i) {
        if (!(left[i] == right[i])) {
            return fmt::format("{}: {} against {}", left[i].path, left[i].value, right[i].value);
        }
    }
    return left.size() == right.size() ? "" : "one has more fields";
}

}  // namespace vmm
