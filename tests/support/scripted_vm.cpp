#include "tests/support/scripted_vm.hpp"

#include <cstring>

namespace tests {

using vmm::Bitmap;
using vmm::kPageSize;
using vmm::Result;

Result<void> ScriptedLog::start() {
    const std::lock_guard lock{mutex_};
    armed_ = true;
    // INITIALLY_SET: everything counts as dirty and shown until it is cleared for the first time.
    dirty_.set_range(0, dirty_.size());
    shown_.set_range(0, shown_.size());
    return {};
}

Result<void> ScriptedLog::collect(Bitmap& dirty) {
    const std::lock_guard lock{mutex_};
    dirty.merge(dirty_);
    shown_.merge(dirty_);
    return {};
}

Result<void> ScriptedLog::rearm(vmm::PageRange range) {
    if (before_clear) {
        before_clear(range);
    }
    const std::lock_guard lock{mutex_};
    for (std::uint64_t page = range.first; page < range.end(); ++page) {
        if (shown_.test(page)) {
            shown_.clear(page);
            dirty_.clear(page);
        }
    }
    return {};
}

Result<void> ScriptedLog::stop() {
    const std::lock_guard lock{mutex_};
    armed_ = false;
    return {};
}

void ScriptedLog::vcpu_wrote(std::uint64_t page) {
    const std::lock_guard lock{mutex_};
    if (armed_) {
        dirty_.set(page);
    }
}

vmm::GuestMemory make_memory(std::uint64_t pages) {
    const vmm::RegionConfig region{vmm::Gpa{0}, pages * kPageSize};
    auto memory = vmm::GuestMemory::create({&region, 1}, vmm::Backing::small);
    VERIFY(memory.has_value());
    return std::move(*memory);
}

void fill_page(vmm::GuestMemory& memory, std::uint64_t page, std::uint8_t seed) {
    const std::span<std::byte> bytes = *memory.pages({page, 1});
    std::uint64_t value = seed * 0x9e3779b97f4a7c15u + page;
    for (std::size_t i = 0; i < kPageSize; i += sizeof value) {
        value = value * 6364136223846793005u + 1442695040888963407u;
        std::memcpy(bytes.data() + i, &value, sizeof value);
    }
}

Result<migration::Manifest> ScriptedSource::manifest() {
    migration::Manifest manifest;
    manifest.name = "scripted";
    manifest.epoch = epoch;
    manifest.ram_bytes = memory_.total_pages() * kPageSize;
    manifest.cpu.vcpus = 1;
    return manifest;
}

Result<void> ScriptedSource::wait_flushed(vmm::Duration) {
    if (on_stall) {
        on_stall();
        return vmm::fail(vmm::Code::timeout, "the storage does not answer");
    }
    return {};
}

Result<void> ScriptedSource::give_exclusives(vmm::Duration limit) {
    TRY(wait_flushed(limit));
    disk->give(this);
    if (on_give) {
        on_give();
    }
    return {};
}

Result<void> ScriptedSource::resume() {
    TRY(disk->take(this));
    running = true;
    return {};
}

void ScriptedSource::release() {
    disk->give(this);
    released = true;
}

// As of a real one: a part that is copied, and one that is sent from where it lies.
vmm::GatheredBytes ScriptedSource::boot_image() {
    vmm::GatheredBytes gathered;
    gathered.put(std::span{image}.first(100));
    gathered.put(std::span{image}.subspan(100));
    return gathered;
}

Result<vmm::Drain> ScriptedSource::pause(vmm::Duration) {
    if (on_pause) {
        on_pause();
    }
    if (pause_error) {
        return vmm::Failure{*pause_error};
    }
    running = false;
    return drain;
}

Result<vmm::Bytes> ScriptedSource::save() {
    if (on_save) {
        on_save();
    }
    vmm::Bytes state(64, std::byte{42});
    state[0] = static_cast<std::byte>(user_paused);
    return state;
}

void ScriptedSource::guest_writes(std::uint64_t page, std::uint8_t seed) {
    fill_page(memory_, page, seed);
    log.vcpu_wrote(page);
}

migration::PreflightReply ScriptedDestination::examine(const migration::Manifest&) {
    return {reasons, {}, 0, 0};
}

Result<migration::DestinationVm::Costs> ScriptedDestination::prepare(const migration::Manifest& manifest,
                                                                     std::span<const std::byte> image) {
    if (on_prepare) {
        on_prepare();
    }
    boot_image.assign(image.begin(), image.end());
    memory_.emplace(make_memory(manifest.ram_bytes / kPageSize));
    return Costs{std::chrono::microseconds{100}, std::chrono::microseconds{100}};
}

Result<void> ScriptedDestination::restore(std::span<const std::byte> bytes, std::optional<vmm::Duration>) {
    if (after_pages) {
        after_pages();
    }
    if (restore_error) {
        return vmm::Failure{*restore_error};
    }
    paused_ = !bytes.empty() && bytes[0] == std::byte{1};
    snapshot.assign(bytes.begin(), bytes.end());
    return {};
}

Result<migration::DestinationVm::Entry> ScriptedDestination::start() {
    TRY(disk->take(this));
    if (start_error) {
        return vmm::Failure{*start_error};
    }
    if (paused_) {
        placed = true;
        return Entry::placed;
    }
    running = true;
    return Entry::running;
}

std::optional<std::uint64_t> first_difference(const vmm::GuestMemory& a, const vmm::GuestMemory& b) {
    for (std::uint64_t page = 0; page < a.page_limit(); ++page) {
        if (std::memcmp(a.pages({page, 1})->data(), b.pages({page, 1})->data(), kPageSize) != 0) {
            return page;
        }
    }
    return std::nullopt;
}

}  // namespace tests
