// What to do about an error, behind its text: "open disk.img: Permission denied; make it writable".
#pragma once

#include <string_view>

#include "vmm/base/result.hpp"

namespace vmm {

inline Failure advise(const Failure& failure, std::string_view remedy) {
    return Failure{Error{failure.value().code(), fmt::format("{}; {}", failure.value().text(), remedy)}};
}

// The same outcome; an error with `remedy`.
template <typename T>
Result<T> advise(Result<T> result, std::string_view remedy) {
    if (result) {
        return result;
    }
    return advise(Failure{std::move(result).error()}, remedy);
}

}  // namespace vmm
