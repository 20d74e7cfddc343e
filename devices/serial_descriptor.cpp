#include "devices/serial_descriptor.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace devices {

using vmm::Result;

namespace {

constexpr std::byte kQuitKey{0x1d};  // Ctrl-]

}  // namespace

Result<std::unique_ptr<DescriptorBackend>> DescriptorBackend::create(vmm::EventLoop& loop,
                                                                     SerialEvents events) {
    std::unique_ptr<DescriptorBackend> backend{
        new DescriptorBackend{loop, std::move(events), TRY(vmm::WakeFd::create())}};
    DescriptorBackend* self = backend.get();
    backend->wake_watch_ = TRY(loop.watch(self->wake_.fd(), EPOLLIN, [self](std::uint32_t) {
        self->wake_.clear();
        self->pump();
    }));
    return backend;
}

Result<std::unique_ptr<SerialBackend>> DescriptorBackend::stdio(vmm::EventLoop& loop, SerialEvents events,
                                                                int in, int out) {
    std::unique_ptr<DescriptorBackend> backend = TRY(create(loop, std::move(events)));
    const auto ready = [self = backend.get()] { self->pump(); };
    vmm::UniqueFd own_out = TRY(private_stream(out, O_WRONLY).context("standard output"));
    backend->output_ = TRY(StreamOutput::create(loop, std::move(own_out), ready).context("standard output"));
    const bool terminal = ::isatty(in) == 1;
    if (terminal && !RawTerminal::in_foreground(in)) {
        return backend;
    }
    vmm::UniqueFd own_in = TRY(private_stream(in, O_RDONLY).context("standard input"));
    backend->input_ = TRY(StreamInput::create(loop, std::move(own_in), ready).context("standard input"));
    if (terminal) {
        backend->terminal_ = TRY(RawTerminal::create(in).context("standard input"));
    }
    return backend;
}

Result<std::unique_ptr<SerialBackend>> DescriptorBackend::file(vmm::EventLoop& loop, SerialEvents events,
                                                               const std::string& path) {
    constexpr mode_t kMode = 0644;
    vmm::UniqueFd fd{
        ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, kMode)};
    if (!fd) {
        return vmm::fail_errno(vmm::Code::io, "open {} for the serial port's output", path);
    }
    std::unique_ptr<DescriptorBackend> backend = TRY(create(loop, std::move(events)));
    backend->output_ =
        TRY(StreamOutput::create(loop, std::move(fd), [self = backend.get()] { self->pump(); }));
    return backend;
}

DescriptorBackend::~DescriptorBackend() {
    const auto quiet = loop_.quiesce();
    input_.reset();
    output_.reset();
    wake_watch_.reset();
}

void DescriptorBackend::attach(SerialWire& wire) {
    const auto quiet = loop_.quiesce();
    wire_ = &wire;
    wire.set_listener(SerialWire::Listener::present);
    wake();
}

void DescriptorBackend::pump() {
    if (wire_ == nullptr) {
        return;
    }
    if (output_) {
        if (auto pumped = output_->pump(*wire_); !pumped) {
            output_.reset();
            wire_->set_listener(SerialWire::Listener::absent);
            events_.failed(std::move(pumped).error().context("serial output"));
        }
    }
    if (input_) {
        const auto typed = [this](std::span<std::byte> bytes) { return filter(bytes); };
        if (!input_->pump(*wire_, typed)) {
            input_.reset();
        }
        if (std::exchange(quit_typed_, false)) {
            events_.quit();
        }
    }
}

std::size_t DescriptorBackend::filter(std::span<std::byte> typed) {
    if (terminal_ == nullptr) {
        return typed.size();
    }
    const auto end = std::remove(typed.begin(), typed.end(), kQuitKey);
    quit_typed_ |= end != typed.end();
    return static_cast<std::size_t>(end - typed.begin());
}

}  // namespace devices
