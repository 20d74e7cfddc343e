// What the guest sees of the serial port: its registers, and which interrupt they ask for.
#include "devices/serial_16550.hpp"

namespace devices {

using namespace uart;

namespace {

// PC16550D table II: FCR bits 7 and 6.
std::size_t trigger_level(std::uint8_t fcr) {
    constexpr std::array<std::size_t, 4> kLevels{1, 4, 8, 14};
    return (fcr & kFcrEnable) != 0 ? kLevels[fcr >> 6] : 1;
}

}  // namespace

// A wide access is several of one byte, as a bus of 8 bits splits it.
void Serial16550::read(std::uint64_t offset, std::span<std::byte> data) {
    const std::lock_guard lock{mutex_};
    for (std::byte& value : data) {
        value = std::byte{read_register(offset++)};
    }
    update();
}

void Serial16550::write(std::uint64_t offset, std::span<const std::byte> data) {
    const std::lock_guard lock{mutex_};
    for (const std::byte value : data) {
        write_register(offset++, std::to_integer<std::uint8_t>(value));
        update();
    }
}

std::uint8_t Serial16550::read_register(std::uint64_t reg) {
    switch (reg) {
        case kData:
            return divisor_selected() ? static_cast<std::uint8_t>(state_.divisor & 0xff) : read_data();
        case kIer:
            return divisor_selected() ? static_cast<std::uint8_t>(state_.divisor >> 8) : state_.ier;
        case kIirFcr:
            return read_iir();
        case kLcr:
            return state_.lcr;
        case kMcr:
            return state_.mcr;
        case kLsr:
            return read_lsr();
        case kMsr:
            return read_msr();
        case kScr:
            return state_.scr;
        default:
            return 0xff;
    }
}

void Serial16550::write_register(std::uint64_t reg, std::uint8_t value) {
    switch (reg) {
        case kData:
            if (divisor_selected()) {
                state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xff00) | value);
            } else {
                write_data(value);
            }
            break;
        case kIer:
            if (divisor_selected()) {
                state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0x00ff) | value << 8);
            } else {
                write_ier(value);
            }
            break;
        case kIirFcr:
            write_fcr(value);
            break;
        case kLcr:
            state_.lcr = value;
            break;
        case kMcr:
            write_mcr(value);
            break;
        case kScr:
            state_.scr = value;
            break;
        default:  // LSR and MSR are for factory tests only
            break;
    }
}

std::uint8_t Serial16550::read_data() {
    if (state_.received.empty()) {
        return 0;
    }
    const auto value = std::to_integer<std::uint8_t>(state_.received.front());
    state_.received.erase(state_.received.begin());
    receiver_freed();
    return value;
}

// Reading IIR acknowledges the transmit interrupt if it is the one reported.
std::uint8_t Serial16550::read_iir() {
    const std::uint8_t cause = interrupt_cause();
    if (cause == kIirTransmit) {
        state_.transmit_event = false;
    }
    return (state_.fcr & kFcrEnable) != 0 ? cause | kIirFifo : cause;
}

std::uint8_t Serial16550::read_lsr() {
    std::uint8_t lsr = transmitter_ready() ? kLsrHoldingEmpty | kLsrIdle : 0;
    if (!state_.received.empty()) {
        lsr |= kLsrReady;
    }
    if (state_.overrun) {
        lsr |= kLsrOverrun;
    }
    state_.overrun = false;
    return lsr;
}

std::uint8_t Serial16550::read_msr() {
    const auto msr = static_cast<std::uint8_t>(modem_inputs() | state_.modem_deltas);
    state_.modem_deltas = 0;
    return msr;
}

void Serial16550::write_data(std::uint8_t value) {
    // The line drops before it rises again, so that an edge-triggered controller sees each character leave.
    state_.transmit_event = false;
    update();
    was_ready_ = false;
    if (!looped()) {
        send(std::byte{value});
    } else if (state_.received.size() < state_.receive_capacity()) {
        state_.received.push_back(std::byte{value});
    } else {
        state_.overrun = true;
        if ((state_.fcr & kFcrEnable) == 0) {
            state_.received.back() = std::byte{value};  // without a FIFO the new character wins
        }
    }
}

// Enabling the transmit interrupt while the transmitter is empty reports it at once.
void Serial16550::write_ier(std::uint8_t value) {
    const auto enabled = static_cast<std::uint8_t>(value & ~state_.ier);
    state_.ier = value & kIerMask;
    if ((enabled & kIerTransmit) != 0 && transmitter_ready()) {
        state_.transmit_event = true;
    }
}

// The transmit FIFO is always empty here (output waits outside the chip), so clearing it does nothing.
void Serial16550::write_fcr(std::uint8_t value) {
    const bool enable = (value & kFcrEnable) != 0;
    const bool toggled = ((value ^ state_.fcr) & kFcrEnable) != 0;
    if (toggled || (value & kFcrClearReceive) != 0) {
        state_.received.clear();
    }
    // The other bits are taken only together with the enable bit.
    state_.fcr = enable ? value & kFcrKept : 0;
    receiver_freed();
}

void Serial16550::write_mcr(std::uint8_t value) {
    const std::uint8_t before = modem_inputs();
    state_.mcr = value & kMcrMask;
    const std::uint8_t after = modem_inputs();
    // Changes of CTS, DSR and DCD (bits 4, 5, 7) and the trailing edge of RI (bit 6) show four bits lower.
    const auto changed = static_cast<std::uint8_t>((before ^ after) & (kMsrCts | kMsrDsr | kMsrDcd));
    const auto ring_ended = static_cast<std::uint8_t>(before & ~after & kMsrRi);
    state_.modem_deltas |= static_cast<std::uint8_t>((changed | ring_ended) >> 4);
    receiver_freed();
}

// In loop-back the four modem outputs feed the inputs (data sheet, section 8.6).
std::uint8_t Serial16550::modem_inputs() const {
    if (!looped()) {
        return kMsrCts | kMsrDsr | kMsrDcd;
    }
    std::uint8_t msr = 0;
    msr |= (state_.mcr & kMcrRts) != 0 ? kMsrCts : 0;
    msr |= (state_.mcr & kMcrDtr) != 0 ? kMsrDsr : 0;
    msr |= (state_.mcr & kMcrOut1) != 0 ? kMsrRi : 0;
    msr |= (state_.mcr & kMcrOut2) != 0 ? kMsrDcd : 0;
    return msr;
}

std::uint8_t Serial16550::interrupt_cause() const {
    if ((state_.ier & kIerLine) != 0 && state_.overrun) {
        return kIirLine;
    }
    if ((state_.ier & kIerReceive) != 0 && !state_.received.empty()) {
        return state_.received.size() >= trigger_level(state_.fcr) ? kIirReceive : kIirTimeout;
    }
    if ((state_.ier & kIerTransmit) != 0 && state_.transmit_event) {
        return kIirTransmit;
    }
    if ((state_.ier & kIerModem) != 0 && state_.modem_deltas != 0) {
        return kIirModem;
    }
    return kIirNone;
}

}  // namespace devices
