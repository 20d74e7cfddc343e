#pragma once

#include <stddef.h>
#include <stdint.h>

namespace guest {

bool equal(const char* a, const char* b);

// Decimal, or hexadecimal after 0x; false for anything else and for numbers past 64 bits.
bool parse_number(const char* text, uint64_t& value);
// Hexadecimal with or without 0x.
bool parse_hex(const char* text, uint64_t& value);

// The `k=v k=v ...` part of one line of the protocol. A field that does not fit is left out whole.
class Fields {
  public:
    Fields& text(const char* key, const char* value);
    Fields& number(const char* key, uint64_t value);
    Fields& signed_number(const char* key, int64_t value);
    Fields& hex(const char* key, uint64_t value);
    // In tenths: 1234 prints 123.4.
    Fields& tenths(const char* key, uint64_t value);
    Fields& append(const Fields& other);

    const char* c_str() const { return buffer_; }

  private:
    void add(const char* key, const char* value);

    char buffer_[1024] = {};
    size_t length_ = 0;
};

// The kernel command line: `k=v` words; keys it is not asked for are ignored, as kernels do.
class Parameters {
  public:
    // Keeps a copy, cut at 1023 characters.
    void read(const char* command_line);

    // The value, or the fallback when the key is absent. A malformed number ends the guest with FAIL.
    const char* word(const char* key, const char* fallback) const;
    uint64_t number(const char* key, uint64_t fallback) const;

  private:
    char text_[1024] = {};
    size_t length_ = 0;
};

}  // namespace guest
