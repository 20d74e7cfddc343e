#include "vmm/machine/reset_vector.hpp"

namespace vmm {

Bytes reset_vector(const PowerPorts& power) {
    Bytes code;
    ByteWriter out{code};
    out.put(std::uint8_t{0xba});  // mov dx, port
    out.put(power.reset);
    out.put(std::uint8_t{0xb0});  // mov al, value
    out.put(power.reset_value);
    out.put(std::uint8_t{0xee});     // out dx, al
    out.put(std::uint16_t{0xfeeb});  // jmp to itself
    return code;
}

}  // namespace vmm
