#include "net_packet.hpp"

namespace workload {

uint32_t add_to_sum(uint32_t sum, const void* data, size_t bytes) {
    const auto* octets = static_cast<const uint8_t*>(data);
    for (; bytes >= 2; bytes -= 2, octets += 2) {
        sum += octets[0] | uint32_t{octets[1]} << 8;
    }
    return bytes == 0 ? sum : sum + octets[0];
}

uint16_t folded(uint32_t sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>((sum & 0xffff) + (sum >> 16));
}

uint32_t pseudo_header_sum(const Ipv4& ip, uint16_t payload_bytes) {
    const uint32_t addresses = add_to_sum(0, &ip.from, sizeof(ip.from) + sizeof(ip.to));
    return addresses + net16(ip.protocol) + net16(payload_bytes);
}

bool parse_ip(const char* text, uint32_t& ip) {
    ip = 0;
    for (uint32_t i = 0; i < 4; ++i) {
        uint32_t octet = 0;
        uint32_t digits = 0;
        for (; *text >= '0' && *text <= '9' && digits < 3; ++text, ++digits) {
            octet = octet * 10 + static_cast<uint32_t>(*text - '0');
        }
        if (digits == 0 || octet > 255 || *text != (i == 3 ? '\0' : '.')) {
            return false;
        }
        ++text;
        ip |= octet << (8 * i);
    }
    return true;
}

void* payload_of(Ipv4& ip, size_t bytes, uint32_t to, bool& bad) {
    if (bytes < sizeof(Ipv4) || ip.version_and_words != kVersion4WithoutOptions || ip.to != to ||
        (ip.fragment & kMoreFragmentsOrOffset) != 0) {
        return nullptr;
    }
    const uint16_t total = net16(ip.bytes);
    if (total < sizeof(Ipv4) || total > bytes || checksum(add_to_sum(0, &ip, sizeof(Ipv4))) != 0) {
        bad = true;
        return nullptr;
    }
    return &ip + 1;
}

void fill_ethernet(Ethernet& header, const Mac& to, const Mac& from, uint16_t type) {
    header = {to, from, type};
}

void fill_arp(Arp& arp, uint16_t operation, const Mac& mac, uint32_t ip, const Mac& target_mac,
              uint32_t target_ip) {
    arp = {net16(1), kTypeIpv4, sizeof(Mac), sizeof(ip), operation, mac, ip, target_mac, target_ip};
}

void fill_ipv4(Ipv4& ip, uint8_t protocol, uint32_t from, uint32_t to, uint16_t payload_bytes) {
    constexpr uint8_t kHops = 64;
    const auto bytes = static_cast<uint16_t>(sizeof(Ipv4) + payload_bytes);
    ip = {kVersion4WithoutOptions, 0, net16(bytes), 0, 0, kHops, protocol, 0, from, to};
    ip.checksum = checksum(add_to_sum(0, &ip, sizeof(Ipv4)));
}

}  // namespace workload
