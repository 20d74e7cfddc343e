// Result<T>: the value, or an Error that says what went wrong, where, and what the host said.
//
// Three kinds of fault, never mixed: a broken invariant of ours is VERIFY (check.hpp); a fault of the host or
// of the peer is a Result; a fault of the guest is device behaviour. We neither throw nor catch exceptions,
// but for the one of std::thread (thread.cpp).
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <tl/expected.hpp>
#include <type_traits>
#include <utility>

namespace vmm {

// For decisions; the text is for people.
enum class Code {
    io,           // the host refused or failed an operation
    kvm,          // a KVM ioctl failed
    closed,       // the peer closed the connection
    timeout,      // a deadline passed
    cancelled,    // somebody asked us to stop
    protocol,     // the peer broke the protocol
    foreign,      // the peer speaks another protocol altogether
    version,      // too old or too new
    limit,        // more than a configured or declared limit
    corrupt,      // a checksum or an encoding is wrong
    mismatch,     // two things that must be equal are not
    unsupported,  // valid, but not offered here
    invalid,      // input of the user is wrong
    refused,      // the peer declined, with reasons
    guest_ended,  // the guest powered off, reset or crashed
};

class Error {
  public:
    Error(Code code, std::string text) : code_(code), text_(std::move(text)) {}

    // `text: strerror(error)`; keeps the number for decisions.
    static Error from_errno(Code code, std::string_view text, int error) {
        Error e{code, fmt::format("{}: {}", text, std::generic_category().message(error))};
        e.errno_ = error;
        return e;
    }

    Code code() const { return code_; }
    int sys_errno() const { return errno_; }
    const std::string& text() const { return text_; }

    // Adds where: "virtio-blk[0]: <text>".
    Error context(std::string_view where) && {
        text_ = fmt::format("{}: {}", where, text_);
        return std::move(*this);
    }

  private:
    Code code_;
    int errno_ = 0;
    std::string text_;
};

using Failure = tl::unexpected<Error>;

template <typename... Args>
Failure fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
    return Failure{Error{code, fmt::format(format, std::forward<Args>(args)...)}};
}

// Uses errno as it stands at the call; the arguments must not change it.
template <typename... Args>
Failure fail_errno(Code code, fmt::format_string<Args...> format, Args&&... args) {
    const int error = errno;
    return Failure{Error::from_errno(code, fmt::format(format, std::forward<Args>(args)...), error)};
}

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
  public:
    using tl::expected<T, Error>::expected;

    // The same outcome, with `where` in front of the text of an error.
    Result context(std::string_view where) && {
        if (this->has_value()) {
            return std::move(*this);
        }
        return Failure{std::move(this->error()).context(where)};
    }
};

}  // namespace vmm

#define GODWIT_CONCAT_(a, b) a##b
#define GODWIT_CONCAT(a, b) GODWIT_CONCAT_(a, b)

// TRY(expression): the value of a Result, or return its error from the enclosing function.
#define TRY(...)                                                   \
    __extension__({                                                \
        auto try_result_ = (__VA_ARGS__);                          \
        if (!try_result_) {                                        \
            return ::vmm::Failure{std::move(try_result_).error()}; \
        }                                                          \
        ::vmm::detail::take(std::move(try_result_));               \
    })

namespace vmm::detail {

template <typename T>
T take(Result<T>&& result) {
    if constexpr (!std::is_void_v<T>) {
        return std::move(*result);
    }
}

}  // namespace vmm::detail
