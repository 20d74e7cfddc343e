#pragma once

#include <stddef.h>
#include <stdint.h>

namespace workload {

// What netecho needs of Ethernet, ARP (RFC 826), IPv4 (RFC 791), ICMP (RFC 792) and UDP (RFC 768). Fields are
// in network order; addresses are kept so, ports and lengths are converted by net16.

inline constexpr uint16_t net16(uint16_t value) {
    return __builtin_bswap16(value);
}

struct [[gnu::packed]] Mac {
    uint8_t bytes[6];
};

struct [[gnu::packed]] Ethernet {
    Mac to;
    Mac from;
    uint16_t type;
};

struct [[gnu::packed]] Arp {
    uint16_t hardware;
    uint16_t protocol;
    uint8_t hardware_bytes;
    uint8_t protocol_bytes;
    uint16_t operation;
    Mac sender_mac;
    uint32_t sender_ip;
    Mac target_mac;
    uint32_t target_ip;
};

struct [[gnu::packed]] Ipv4 {
    uint8_t version_and_words;
    uint8_t service;
    uint16_t bytes;
    uint16_t id;
    uint16_t fragment;
    uint8_t hops;
    uint8_t protocol;
    uint16_t checksum;
    uint32_t from;
    uint32_t to;
};

struct [[gnu::packed]] Icmp {
    uint8_t type;
    uint8_t code;
    uint16_t checksum;
    uint16_t id;
    uint16_t sequence;
};

struct [[gnu::packed]] Udp {
    uint16_t from;
    uint16_t to;
    uint16_t bytes;
    uint16_t checksum;
};

inline constexpr uint16_t kTypeIpv4 = net16(0x0800);
inline constexpr uint16_t kTypeArp = net16(0x0806);
inline constexpr uint16_t kArpRequest = net16(1);
inline constexpr uint16_t kArpReply = net16(2);
inline constexpr uint8_t kVersion4WithoutOptions = 0x45;
inline constexpr uint16_t kMoreFragmentsOrOffset = net16(0x3fff);
inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kEchoReply = 0;
inline constexpr uint8_t kEchoRequest = 8;
inline constexpr Mac kBroadcast = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
inline constexpr Mac kNoMac = {};
inline constexpr size_t kLargestFrame = 1514;

// The sum of RFC 1071, not complemented, so that sums can be added: in network order, as data is.
uint32_t add_to_sum(uint32_t sum, const void* data, size_t bytes);
uint16_t folded(uint32_t sum);
inline uint16_t checksum(uint32_t sum) {
    return static_cast<uint16_t>(~folded(sum));
}
uint32_t pseudo_header_sum(const Ipv4& ip, uint16_t payload_bytes);

// "10.9.0.2" in network order; false for anything else.
bool parse_ip(const char* text, uint32_t& ip);

// The payload of an IP header without options that is whole and meant for `to`; nullptr if it is not, and
// `bad` if it is, but for its checksum. `bytes` is what is behind the header.
void* payload_of(Ipv4& ip, size_t bytes, uint32_t to, bool& bad);

void fill_ethernet(Ethernet& header, const Mac& to, const Mac& from, uint16_t type);
void fill_arp(Arp& arp, uint16_t operation, const Mac& mac, uint32_t ip, const Mac& target_mac,
              uint32_t target_ip);
// With its checksum.
void fill_ipv4(Ipv4& ip, uint8_t protocol, uint32_t from, uint32_t to, uint16_t payload_bytes);

}  // namespace workload
