// Registers of the 16550A UART (National Semiconductor PC16550D data sheet, 1995, section 8) and the state
// that a serial port carries to another host.
#pragma once

#include <cstdint>

#include "vmm/base/bytes.hpp"
#include "vmm/state/field.hpp"

namespace devices {

namespace uart {

// Offsets from the base port; the first two are the divisor while LCR bit 7 (DLAB) is set.
enum Register : std::uint8_t { kData = 0, kIer, kIirFcr, kLcr, kMcr, kLsr, kMsr, kScr, kRegisters };

inline constexpr std::uint8_t kIerReceive = 0x01;
inline constexpr std::uint8_t kIerTransmit = 0x02;
inline constexpr std::uint8_t kIerLine = 0x04;
inline constexpr std::uint8_t kIerModem = 0x08;
inline constexpr std::uint8_t kIerMask = 0x0f;

inline constexpr std::uint8_t kIirModem = 0x00;
inline constexpr std::uint8_t kIirNone = 0x01;
inline constexpr std::uint8_t kIirTransmit = 0x02;
inline constexpr std::uint8_t kIirReceive = 0x04;
inline constexpr std::uint8_t kIirLine = 0x06;
inline constexpr std::uint8_t kIirTimeout = 0x0c;
inline constexpr std::uint8_t kIirFifo = 0xc0;

inline constexpr std::uint8_t kFcrEnable = 0x01;
inline constexpr std::uint8_t kFcrClearReceive = 0x02;
inline constexpr std::uint8_t kFcrKept = 0xc9;  // enable, DMA mode (no pin reads it here) and trigger level

inline constexpr std::uint8_t kLcrDivisor = 0x80;

inline constexpr std::uint8_t kMcrDtr = 0x01;
inline constexpr std::uint8_t kMcrRts = 0x02;
inline constexpr std::uint8_t kMcrOut1 = 0x04;
inline constexpr std::uint8_t kMcrOut2 = 0x08;
inline constexpr std::uint8_t kMcrLoop = 0x10;
inline constexpr std::uint8_t kMcrMask = 0x1f;

inline constexpr std::uint8_t kLsrReady = 0x01;
inline constexpr std::uint8_t kLsrOverrun = 0x02;
inline constexpr std::uint8_t kLsrHoldingEmpty = 0x20;
inline constexpr std::uint8_t kLsrIdle = 0x40;

inline constexpr std::uint8_t kMsrCts = 0x10;
inline constexpr std::uint8_t kMsrDsr = 0x20;
inline constexpr std::uint8_t kMsrRi = 0x40;
inline constexpr std::uint8_t kMsrDcd = 0x80;
inline constexpr std::uint8_t kMsrDeltaCts = 0x01;
inline constexpr std::uint8_t kMsrDeltaDsr = 0x02;
inline constexpr std::uint8_t kMsrRingEnd = 0x04;
inline constexpr std::uint8_t kMsrDeltaDcd = 0x08;
inline constexpr std::uint8_t kMsrDeltas = 0x0f;

inline constexpr std::size_t kFifoBytes = 16;

}  // namespace uart

struct Serial16550State {
    static constexpr vmm::StateId id{"serial-16550", 1, 1};
    // Output that nobody has taken yet; it goes with the guest. A host's buffer, not the chip's FIFO.
    static constexpr std::size_t kOutputLimit = std::size_t{64} << 10;
    static constexpr std::uint16_t kDivisor9600 = 12;

    std::uint8_t ier = 0;
    std::uint8_t fcr = 0;
    std::uint8_t lcr = 0;
    std::uint8_t mcr = 0;
    std::uint8_t scr = 0;
    std::uint16_t divisor = kDivisor9600;
    bool overrun = false;
    std::uint8_t modem_deltas = 0;
    bool transmit_event = false;  // the transmitter-empty interrupt waits to be read from IIR
    vmm::Bytes received;          // oldest first
    vmm::Bytes output;            // oldest first

    std::size_t receive_capacity() const { return (fcr & uart::kFcrEnable) != 0 ? uart::kFifoBytes : 1; }

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("ier", self.ier);
        v.check((self.ier & ~uart::kIerMask) == 0, "ier has four bits");
        v.field("fcr", self.fcr);
        v.check((self.fcr & ~uart::kFcrKept) == 0, "fcr has only the bits that last");
        v.field("lcr", self.lcr);
        v.field("mcr", self.mcr);
        v.check((self.mcr & ~uart::kMcrMask) == 0, "mcr has five bits");
        v.field("scr", self.scr);
        v.field("divisor", self.divisor);
        v.field("overrun", self.overrun);
        v.field("modem_deltas", self.modem_deltas);
        v.check((self.modem_deltas & ~uart::kMsrDeltas) == 0, "modem_deltas has four bits");
        v.field("transmit_event", self.transmit_event);
        v.bytes("received", self.received, uart::kFifoBytes);
        v.check(self.received.size() <= self.receive_capacity(), "received fits the receiver");
        v.bytes("output", self.output, kOutputLimit);
    }
};

}  // namespace devices
