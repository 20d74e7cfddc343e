// Answers ARP, ICMP echo and UDP echo (port 7) for one address, announces itself, and sends a numbered UDP
// datagram to a peer at a steady rate. Checks every checksum.

#include "net_device.hpp"
#include "net_packet.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/serial.hpp"

extern "C" void* memcpy(void* to, const void* from, size_t size);

namespace workload {

extern "C" const char workload_name[] = "netecho";

namespace {

using guest::Fields;

constexpr uint64_t kTimerHz = 100;
constexpr uint64_t kPatience = 20 * kTimerHz;
constexpr uint32_t kStepFrames = 4;  // in one iteration of the main loop

constexpr uint16_t kEchoPort = 7;
constexpr uint16_t kBeatPort = 7001;

constexpr size_t kIpAt = sizeof(Ethernet);
constexpr size_t kPayloadAt = kIpAt + sizeof(Ipv4);

// A heartbeat, in network order. A peer may send it back.
struct [[gnu::packed]] Beat {
    uint64_t number;
    uint64_t us;  // since `ready`
};

struct Counters {
    uint64_t received, sent, ignored, not_sent;
    uint64_t bad_checksums, unfinished_checksums;
    uint64_t arp, icmp, udp, announcements;
    uint64_t beats, answers, late_answers, lost_answers;
};

constinit NetDevice net;
constinit uint32_t own_ip = 0;
constinit uint32_t peer_ip = 0;
constinit uint16_t peer_port = 0;
constinit Mac peer_mac = {};
constinit bool peer_known = false;
constinit uint64_t beat_interval = 0;  // TSC ticks
constinit uint64_t next_beat = 0;
constinit uint64_t answered = 0;  // the highest number that came back
constinit Counters counters = {};

uint8_t* begin_frame(const Mac& to, uint16_t type) {
    uint8_t* frame = net.sending();
    if (frame == nullptr) {
        ++counters.not_sent;
        return nullptr;
    }
    fill_ethernet(*reinterpret_cast<Ethernet*>(frame), to, net.mac(), type);
    return frame;
}

void send(size_t bytes, size_t sum_from = 0, size_t checksum_at = 0) {
    net.send(bytes, sum_from, checksum_at);
    ++counters.sent;
}

void send_arp(uint16_t operation, const Mac& to, const Mac& target_mac, uint32_t target_ip) {
    if (uint8_t* frame = begin_frame(to, kTypeArp)) {
        fill_arp(*reinterpret_cast<Arp*>(frame + kIpAt), operation, net.mac(), own_ip, target_mac, target_ip);
        send(kIpAt + sizeof(Arp));
    }
}

// A gratuitous ARP request (RFC 5227 section 3): switches and peers learn where the address is now.
void announce() {
    send_arp(kArpRequest, kBroadcast, kNoMac, own_ip);
    ++counters.announcements;
}

void send_udp(const Mac& to, uint32_t ip, uint16_t from_port, uint16_t to_port, const void* data,
              uint16_t bytes) {
    uint8_t* frame = begin_frame(to, kTypeIpv4);
    if (frame == nullptr) {
        return;
    }
    auto& header = *reinterpret_cast<Ipv4*>(frame + kIpAt);
    auto& udp = *reinterpret_cast<Udp*>(frame + kPayloadAt);
    const auto payload = static_cast<uint16_t>(sizeof(Udp) + bytes);
    fill_ipv4(header, kProtocolUdp, own_ip, ip, payload);
    udp = {net16(from_port), net16(to_port), net16(payload), 0};
    memcpy(&udp + 1, data, bytes);
    const uint32_t pseudo = pseudo_header_sum(header, payload);
    if (net.finishes_checksums()) {
        udp.checksum = folded(pseudo);
        send(kPayloadAt + payload, kPayloadAt, kPayloadAt + offsetof(Udp, checksum));
        return;
    }
    const uint16_t sum = checksum(add_to_sum(pseudo, &udp, payload));
    udp.checksum = sum == 0 ? 0xffff : sum;  // RFC 768: 0 says that there is none
    send(kPayloadAt + payload);
}

void handle_arp(const Arp& arp) {
    if (arp.sender_ip == peer_ip && peer_ip != 0) {
        peer_mac = arp.sender_mac;
        peer_known = true;
    }
    if (arp.operation == kArpRequest && arp.target_ip == own_ip) {
        send_arp(kArpReply, arp.sender_mac, arp.sender_mac, arp.sender_ip);
        ++counters.arp;
    }
}

void handle_icmp(const Ethernet& ethernet, const Ipv4& ip, const Icmp& icmp, uint16_t bytes) {
    if (checksum(add_to_sum(0, &icmp, bytes)) != 0) {
        ++counters.bad_checksums;
        return;
    }
    if (icmp.type != kEchoRequest || icmp.code != 0) {
        ++counters.ignored;
        return;
    }
    if (uint8_t* frame = begin_frame(ethernet.from, kTypeIpv4)) {
        fill_ipv4(*reinterpret_cast<Ipv4*>(frame + kIpAt), kProtocolIcmp, own_ip, ip.from, bytes);
        auto& reply = *reinterpret_cast<Icmp*>(frame + kPayloadAt);
        memcpy(&reply, &icmp, bytes);
        reply.type = kEchoReply;
        reply.checksum = 0;
        reply.checksum = checksum(add_to_sum(0, &reply, bytes));
        send(kPayloadAt + bytes);
        ++counters.icmp;
    }
}

void handle_answer(const Udp& udp) {
    Beat beat;
    memcpy(&beat, &udp + 1, sizeof(beat));
    const uint64_t number = __builtin_bswap64(beat.number);
    if (number == 0 || number > counters.beats) {
        guest::fail(Fields()
                        .text("reason", "answer_to_nothing")
                        .number("number", number)
                        .number("beats", counters.beats));
    }
    ++counters.answers;
    if (number <= answered) {
        ++counters.late_answers;
        return;
    }
    // The peer may begin late: what was before its first answer is not lost.
    counters.lost_answers += answered == 0 ? 0 : number - answered - 1;
    answered = number;
}

void handle_udp(const Ethernet& ethernet, const Ipv4& ip, const Udp& udp, uint16_t bytes, bool unfinished) {
    if (udp.checksum != 0 && !unfinished &&
        checksum(add_to_sum(pseudo_header_sum(ip, bytes), &udp, bytes)) != 0) {
        ++counters.bad_checksums;
        return;
    }
    const auto data = static_cast<uint16_t>(bytes - sizeof(Udp));
    if (udp.to == net16(kEchoPort)) {
        send_udp(ethernet.from, ip.from, kEchoPort, net16(udp.from), &udp + 1, data);
        ++counters.udp;
    } else if (udp.to == net16(kBeatPort) && ip.from == peer_ip && data == sizeof(Beat)) {
        handle_answer(udp);
    } else {
        ++counters.ignored;
    }
}

void handle_ip(const Ethernet& ethernet, Ipv4& ip, size_t bytes, bool unfinished) {
    bool bad = false;
    void* payload = payload_of(ip, bytes, own_ip, bad);
    counters.bad_checksums += bad ? 1 : 0;
    if (payload == nullptr) {
        counters.ignored += bad ? 0 : 1;
        return;
    }
    counters.unfinished_checksums += unfinished ? 1 : 0;
    const auto payload_bytes = static_cast<uint16_t>(net16(ip.bytes) - sizeof(Ipv4));
    const auto& udp = *static_cast<const Udp*>(payload);
    if (ip.protocol == kProtocolIcmp && payload_bytes >= sizeof(Icmp)) {
        handle_icmp(ethernet, ip, *static_cast<const Icmp*>(payload), payload_bytes);
    } else if (ip.protocol == kProtocolUdp && payload_bytes >= sizeof(Udp) &&
               net16(udp.bytes) == payload_bytes) {
        handle_udp(ethernet, ip, udp, payload_bytes, unfinished);
    } else {
        ++counters.ignored;
    }
}

void handle(const NetDevice::Frame& frame) {
    ++counters.received;
    if (frame.bytes < kIpAt + sizeof(Arp) || frame.bytes > kLargestFrame) {
        ++counters.ignored;
        return;
    }
    const auto& ethernet = *reinterpret_cast<const Ethernet*>(frame.data);
    if (ethernet.type == kTypeArp) {
        handle_arp(*reinterpret_cast<const Arp*>(frame.data + kIpAt));
    } else if (ethernet.type == kTypeIpv4) {
        handle_ip(ethernet, *reinterpret_cast<Ipv4*>(frame.data + kIpAt), frame.bytes - kIpAt,
                  frame.unfinished_checksum);
    } else {
        ++counters.ignored;
    }
}

// After a pause the rate goes on from now: a burst of what was missed is nobody's heartbeat.
void beat_if_due() {
    const uint64_t now = guest::watch().now();
    if (peer_ip == 0 || now < next_beat) {
        return;
    }
    next_beat = now - next_beat > beat_interval ? now + beat_interval : next_beat + beat_interval;
    if (!peer_known) {
        send_arp(kArpRequest, kBroadcast, kNoMac, peer_ip);
        return;
    }
    ++counters.beats;
    const uint64_t us = guest::us_from_tsc(guest::watch().elapsed());
    const Beat beat{__builtin_bswap64(counters.beats), __builtin_bswap64(us)};
    send_udp(peer_mac, peer_ip, kBeatPort, peer_port, &beat, sizeof(beat));
}

uint32_t ip_of(const guest::Parameters& parameters, const char* key, const char* fallback) {
    uint32_t ip = 0;
    const char* text = parameters.word(key, fallback);
    if (!parse_ip(text, ip)) {
        guest::fail(Fields().text("reason", "bad_parameter").text(key, text));
    }
    return ip;
}

}  // namespace

void start(const guest::Parameters& parameters, Fields& ready) {
    const uint64_t beat_ms = parameters.number("beat_ms", 100);
    own_ip = ip_of(parameters, "ip", "10.9.0.2");
    peer_ip = ip_of(parameters, "peer", "0.0.0.0");
    peer_port = static_cast<uint16_t>(parameters.number("peer_port", kBeatPort));
    if (beat_ms == 0) {
        guest::fail(Fields().text("reason", "bad_parameter").number("beat_ms", beat_ms));
    }
    beat_interval = guest::tsc_from_us(beat_ms * 1000);
    guest::start_periodic_timer(kTimerHz);
    net.start(parameters);
    next_beat = guest::rdtsc();
    announce();
    net.notify();

    uint64_t mac = 0;
    for (const uint8_t byte : net.mac().bytes) {
        mac = mac << 8 | byte;
    }
    ready.text("ip", parameters.word("ip", "10.9.0.2")).text("peer", parameters.word("peer", "none"));
    ready.hex("mac", mac).number("beat_ms", beat_ms).number("csum", net.finishes_checksums() ? 1 : 0);
    net.device().describe(ready);
}

void step() {
    const uint64_t interrupts = net.device().interrupts();
    uint32_t handled = 0;
    NetDevice::Frame frame;
    while (handled < kStepFrames && net.receive(frame)) {
        handle(frame);
        net.give_back(frame);
        ++handled;
    }
    if (net.wants_announcement()) {
        announce();
        net.confirm_announcement();
    }
    beat_if_due();
    net.notify();
    net.check_patience(kPatience);
    // With interrupts it sleeps when there is nothing to do but wait, and no output either.
    if (net.device().uses_interrupts() && handled == 0 && !guest::serial::busy()) {
        guest::halt_while(net.device().interrupts(), interrupts);
    }
}

void report(Fields& fields) {
    fields.number("rx", counters.received).number("tx", counters.sent).number("not_sent", counters.not_sent);
    fields.number("ignored", counters.ignored).number("bad_checksums", counters.bad_checksums);
    fields.number("unfinished_checksums", counters.unfinished_checksums);
    fields.number("arp", counters.arp).number("icmp", counters.icmp).number("udp", counters.udp);
    fields.number("announcements", counters.announcements).number("beats", counters.beats);
    fields.number("answers", counters.answers).number("late_answers", counters.late_answers);
    fields.number("lost_answers", counters.lost_answers);
    fields.number("uncounted", net.uncounted()).number("interrupts", net.device().interrupts());
}

// All that was sent has left, and the device is well. Checksums are the network's: who tests it looks at
// them.
bool verify(Fields&) {
    do {
        net.notify();
        net.check_patience(kPatience);
        guest::watch().beat();
    } while (net.unsent() != 0);
    net.device().check_status();
    return true;
}

}  // namespace workload
