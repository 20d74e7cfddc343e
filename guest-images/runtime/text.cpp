#include "runtime/text.hpp"

#include "runtime/guest.hpp"

namespace guest {
namespace {

size_t length_of(const char* text) {
    size_t length = 0;
    while (text[length] != '\0') {
        ++length;
    }
    return length;
}

bool parse_digits(const char* text, uint64_t base, uint64_t& value) {
    value = 0;
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; ++text) {
        const char lower = static_cast<char>(*text | 0x20);
        uint64_t digit = 0;
        if (*text >= '0' && *text <= '9') {
            digit = static_cast<uint64_t>(*text - '0');
        } else if (base == 16 && lower >= 'a' && lower <= 'f') {
            digit = static_cast<uint64_t>(lower - 'a') + 10;
        } else {
            return false;
        }
        if (value > (UINT64_MAX - digit) / base) {
            return false;
        }
        value = value * base + digit;
    }
    return true;
}

// 64 binary digits would not fit; base 10 and 16 do.
struct Digits {
    Digits(uint64_t value, uint64_t base) {
        do {
            *--first = "0123456789abcdef"[value % base];
            value /= base;
        } while (value != 0);
    }
    char buffer[24] = {};
    char* first = buffer + sizeof(buffer) - 1;
};

}  // namespace

bool equal(const char* a, const char* b) {
    while (*a != '\0' && *a == *b) {
        ++a;
        ++b;
    }
    return *a == *b;
}

bool parse_number(const char* text, uint64_t& value) {
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        return parse_digits(text + 2, 16, value);
    }
    return parse_digits(text, 10, value);
}

bool parse_hex(const char* text, uint64_t& value) {
    const bool prefixed = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    return parse_digits(prefixed ? text + 2 : text, 16, value);
}

void Fields::add(const char* key, const char* value) {
    const size_t key_length = length_of(key);
    const size_t value_length = length_of(value);
    if (length_ + key_length + value_length + 2 >= sizeof(buffer_)) {
        return;
    }
    char* to = buffer_ + length_;
    *to++ = ' ';
    for (size_t i = 0; i < key_length; ++i) {
        *to++ = key[i];
    }
    *to++ = '=';
    for (size_t i = 0; i < value_length; ++i) {
        *to++ = value[i];
    }
    length_ += key_length + value_length + 2;
}

Fields& Fields::text(const char* key, const char* value) {
    add(key, value);
    return *this;
}

Fields& Fields::number(const char* key, uint64_t value) {
    add(key, Digits(value, 10).first);
    return *this;
}

Fields& Fields::signed_number(const char* key, int64_t value) {
    Digits digits(value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value), 10);
    if (value < 0) {
        *--digits.first = '-';
    }
    add(key, digits.first);
    return *this;
}

Fields& Fields::hex(const char* key, uint64_t value) {
    Digits digits(value, 16);
    *--digits.first = 'x';
    *--digits.first = '0';
    add(key, digits.first);
    return *this;
}

Fields& Fields::tenths(const char* key, uint64_t value) {
    Digits fraction(value % 10, 10);
    Digits whole(value / 10, 10);
    char joined[32] = {};
    size_t length = 0;
    for (const char* from = whole.first; *from != '\0'; ++from) {
        joined[length++] = *from;
    }
    joined[length++] = '.';
    joined[length] = *fraction.first;
    add(key, joined);
    return *this;
}

Fields& Fields::append(const Fields& other) {
    if (length_ + other.length_ < sizeof(buffer_)) {
        for (size_t i = 0; i < other.length_; ++i) {
            buffer_[length_ + i] = other.buffer_[i];
        }
        length_ += other.length_;
    }
    return *this;
}

void Parameters::read(const char* command_line) {
    // Words become NUL-separated, so that a value is a C string in place.
    for (length_ = 0; command_line[length_] != '\0' && length_ < sizeof(text_) - 1; ++length_) {
        const char c = command_line[length_];
        text_[length_] = c == ' ' ? '\0' : c;
    }
}

const char* Parameters::word(const char* key, const char* fallback) const {
    const size_t key_length = length_of(key);
    for (size_t at = 0; at < length_; at += length_of(text_ + at) + 1) {
        size_t same = 0;
        while (same < key_length && text_[at + same] == key[same]) {
            ++same;
        }
        if (same == key_length && text_[at + same] == '=') {
            return text_ + at + same + 1;
        }
    }
    return fallback;
}

uint64_t Parameters::number(const char* key, uint64_t fallback) const {
    const char* value = word(key, nullptr);
    uint64_t result = fallback;
    if (value != nullptr && !parse_number(value, result)) {
        fail(Fields().text("reason", "bad_parameter").text("key", key).text("value", value));
    }
    return result;
}

}  // namespace guest
