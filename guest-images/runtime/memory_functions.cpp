// The functions a freestanding compiler may call on its own (GCC manual, "Standards").

#include <stddef.h>

extern "C" {

void* memcpy(void* to, const void* from, size_t size) {
    void* result = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return result;
}

void* memset(void* to, int value, size_t size) {
    void* result = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return result;
}

void* memmove(void* to, const void* from, size_t size) {
    if (to <= from) {
        return memcpy(to, from, size);
    }
    auto* to_end = static_cast<char*>(to) + size - 1;
    const auto* from_end = static_cast<const char*>(from) + size - 1;
    asm volatile("std; rep movsb; cld" : "+D"(to_end), "+S"(from_end), "+c"(size) : : "memory");
    return to;
}

int memcmp(const void* a, const void* b, size_t size) {
    const auto* left = static_cast<const unsigned char*>(a);
    const auto* right = static_cast<const unsigned char*>(b);
    for (size_t i = 0; i < size; ++i) {
        if (left[i] != right[i]) {
            return left[i] - right[i];
        }
    }
    return 0;
}
}
