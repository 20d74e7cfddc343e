// A serial port with a real back end, and the other end of its descriptors.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "devices/serial_16550.hpp"
#include "devices/serial_backend.hpp"
#include "tests/unit/devices/fakes.hpp"

namespace tests {

class TempFolder {
  public:
    TempFolder() {
        std::string name = std::filesystem::temp_directory_path() / "serial-XXXXXX";
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~TempFolder() { std::filesystem::remove_all(path_); }
    std::string file(const char* name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

// A running serial port with an I/O thread.
class Host {
  public:
    Host() : loop_(std::move(*vmm::EventLoop::create())), thread_([this] { (void)loop_->run(); }) {}
    ~Host() {
        serial_.reset();
        loop_->stop();
        thread_.join();
    }
    devices::SerialEvents events() {
        return {[this] { ++quits; }, [this](const vmm::Error&) { ++failures; }};
    }
    void start(vmm::Result<std::unique_ptr<devices::SerialBackend>> backend) {
        REQUIRE(backend);
        serial_ = std::make_unique<devices::Serial16550>(line_, std::move(*backend));
        out(*serial_, devices::uart::kIirFcr, devices::uart::kFcrEnable);
        serial_->resume();
    }
    void start(devices::SerialConfig::Kind kind, const std::string& path) {
        start(devices::make_serial_backend({kind, path}, *loop_, events()));
    }
    // As a driver does: waits for THRE.
    void print(std::string_view text) {
        for (const char c : text) {
            while ((in(*serial_, devices::uart::kLsr) & devices::uart::kLsrHoldingEmpty) == 0) {
                std::this_thread::yield();
            }
            out(*serial_, devices::uart::kData, static_cast<unsigned char>(c));
        }
    }
    // The next input characters, or what came within a few seconds.
    std::string read(std::size_t count) {
        std::string text;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{10};
        while (text.size() < count && std::chrono::steady_clock::now() < end) {
            if ((in(*serial_, devices::uart::kLsr) & devices::uart::kLsrReady) != 0) {
                text.push_back(static_cast<char>(in(*serial_, devices::uart::kData)));
            } else {
                std::this_thread::yield();
            }
        }
        return text;
    }
    devices::Serial16550& serial() { return *serial_; }
    vmm::EventLoop& loop() { return *loop_; }
    void stop() { serial_.reset(); }

    std::atomic<int> quits = 0;
    std::atomic<int> failures = 0;

  private:
    tests::FakeLine line_;
    std::unique_ptr<vmm::EventLoop> loop_;
    std::thread thread_;
    std::unique_ptr<devices::Serial16550> serial_;
};

inline std::string read_fd(int fd, std::size_t count) {
    std::string text;
    while (text.size() < count) {
        pollfd entry{fd, POLLIN, 0};
        std::array<char, 4096> buffer;
        if (::poll(&entry, 1, 10'000) <= 0) {
            break;
        }
        const ssize_t got = ::read(fd, buffer.data(), std::min(buffer.size(), count - text.size()));
        if (got <= 0) {
            break;
        }
        text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return text;
}

inline void write_fd(int fd, std::string_view text) {
    REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

inline std::string pattern(std::size_t size) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) {
        text.push_back(static_cast<char>('!' + i % 91));
    }
    return text;
}

}  // namespace tests
