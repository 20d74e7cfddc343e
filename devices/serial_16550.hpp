// A 16550A serial port with a perfect line: characters arrive and leave at once and unharmed, so parity,
// framing and break conditions never occur, in loop-back mode either, and the divisor is storage only. The
// character time-out interrupt is due as soon as the FIFO holds less than the trigger level. The modem inputs
// CTS, DSR and DCD are on.
//
// Output the host has not taken waits in a queue that belongs to the state. When it is nearly full THRE stays
// 0, so that nothing is lost and no vCPU waits; while nobody listens it drops the oldest instead.
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "devices/byte_queue.hpp"
#include "devices/serial_16550_state.hpp"
#include "devices/serial_backend.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/interrupt.hpp"

namespace devices {

class Serial16550 final : public vmm::Device, public vmm::BusDevice, private SerialWire {
  public:
    static constexpr std::uint64_t kPorts = uart::kRegisters;

    // The line must outlive the device. It is created paused, so that no input is taken before a state is
    // restored.
    Serial16550(vmm::InterruptLine& line, std::unique_ptr<SerialBackend> backend);

    // For the end of a guest, paused or not: goes on delivering and waits until the host has taken all
    // output, nobody listens, or `limit` has passed. True when nothing waits. Not for a guest that moved
    // away, whose output went along; not on the I/O thread.
    bool flush(vmm::Duration limit);

    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    vmm::DeviceIdentity identity() const override { return {Serial16550State::id, 0}; }
    vmm::Result<std::uint64_t> pause(vmm::Duration limit) override;
    void resume() override;
    // Resets the chip; output that waits has left the chip already and stays.
    void reset() override;
    void save(vmm::SnapshotWriter& snapshot) const override;
    vmm::Result<void> restore(vmm::SnapshotReader& snapshot) override;

  private:
    bool transmit(const std::function<std::size_t(std::span<const std::byte>)>& deliver) override;
    bool receive(const std::function<std::size_t(std::span<std::byte>)>& fetch) override;
    void set_listener(Listener listener) override;

    // All below with mutex_ held.
    std::uint8_t read_register(std::uint64_t reg);
    void write_register(std::uint64_t reg, std::uint8_t value);
    std::uint8_t read_data();
    std::uint8_t read_iir();
    std::uint8_t read_lsr();
    std::uint8_t read_msr();
    void write_data(std::uint8_t value);
    void write_ier(std::uint8_t value);
    void write_fcr(std::uint8_t value);
    void write_mcr(std::uint8_t value);
    bool divisor_selected() const { return (state_.lcr & uart::kLcrDivisor) != 0; }
    bool looped() const { return (state_.mcr & uart::kMcrLoop) != 0; }
    // MSR bits 4 to 7.
    std::uint8_t modem_inputs() const;
    // The most urgent pending interrupt, as IIR reports it.
    std::uint8_t interrupt_cause() const;
    // Into the output queue.
    void send(std::byte value);
    bool transmitter_ready() const;
    bool can_receive() const;
    // Call it when there may be room in the receiver again.
    void receiver_freed();
    // Call it after every change: notices that the transmitter became ready, and sets the line to what the
    // state says. Does nothing while paused; resume() makes up for it.
    void update();

    mutable std::mutex mutex_;
    std::condition_variable delivered_;
    Serial16550State state_;  // its `output` is empty: the bytes are in output_
    ByteQueue output_{Serial16550State::kOutputLimit};
    Listener listener_ = Listener::absent;
    bool paused_ = true;
    bool flushing_ = false;       // the guest has ended: output flows although paused
    bool was_ready_ = true;       // transmitter_ready() when update() last looked
    bool delivering_ = false;     // the host is being offered the front of output_, without the lock
    bool input_refused_ = false;  // the back end has been turned away and wants to be woken
    bool line_level_ = false;
    vmm::InterruptLine& line_;
    // Last, so destroyed first: its thread calls us.
    std::unique_ptr<SerialBackend> backend_;
};

}  // namespace devices
