#include "tools/vmm/device_options.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "devices/board.hpp"
#include "migration/ids.hpp"
#include "tools/vmm/parse.hpp"

namespace tools {

using devices::virtio::Config;
using devices::virtio::ConsoleConfig;
using devices::virtio::DiskConfig;
using devices::virtio::MacAddress;
using devices::virtio::NetConfig;
using devices::virtio::RngConfig;
using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

constexpr const char* kDiskForm = "id=NAME,path=FILE[,ro][,direct]";
constexpr const char* kNetForm = "id=NAME,tap=INTERFACE[,mac=52:54:00:12:34:56]";

// "key=value,flag": what of `known` is there, each once. A value has no comma.
class Keys {
  public:
    static Result<Keys> parse(std::string_view text, const std::set<std::string_view>& known,
                              const char* form) {
        Keys keys;
        for (std::string_view rest = text; !rest.empty();) {
            const std::string_view part = rest.substr(0, rest.find(','));
            rest.remove_prefix(std::min(rest.size(), part.size() + 1));
            const std::size_t equals = std::min(part.find('='), part.size());
            const std::string key{part.substr(0, equals)};
            if (!known.contains(key) || keys.values_.contains(key)) {
                return fail(Code::invalid, "\"{}\": \"{}\" is {}; give {}", text, part,
                            known.contains(key) ? "there twice" : "not known", form);
            }
            keys.values_[key] = part.substr(std::min(part.size(), equals + 1));
        }
        return keys;
    }
    bool has(const std::string& key) const { return values_.contains(key); }
    std::string value(const std::string& key) const { return has(key) ? values_.at(key) : ""; }

  private:
    std::map<std::string, std::string> values_;
};

Result<std::string> id_of(const Keys& keys, std::string_view text, const char* form) {
    if (!is_guest_name(keys.value("id"))) {
        return fail(Code::invalid, "\"{}\" has no id of A-Z a-z 0-9 . _ -; give {}", text, form);
    }
    return keys.value("id");
}

// Six bytes in hexadecimal; not a group address.
Result<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac{};
    std::string_view rest = text;
    bool good = text.size() == 17;
    for (std::size_t i = 0; good && i < mac.size(); ++i) {
        const auto [end, error] = std::from_chars(rest.data(), rest.data() + 2, mac[i], 16);
        good = error == std::errc{} && end == rest.data() + 2 && (i == 5 || rest[2] == ':');
        rest.remove_prefix(std::min<std::size_t>(3, rest.size()));
    }
    if (!good || (mac[0] & 1) != 0) {
        return fail(Code::invalid,
                    "\"{}\" is not the address of a station; give six bytes as in 52:54:00:12:34:56", text);
    }
    return mac;
}

MacAddress make_mac() {
    const auto random = migration::random_bytes<3>();
    return {0x52, 0x54, 0x00, random[0], random[1], random[2]};  // locally administered
}

// Adds an option that may be repeated, each time one device.
template <typename Parse>
void add(CLI::App* app, const char* name, std::vector<Config>& devices, Parse parse,
         const std::string& help) {
    app->add_option_function<std::vector<std::string>>(
           name,
           [&devices, parse](const std::vector<std::string>& texts) {
               for (const std::string& text : texts) {
                   devices.push_back(*parse(text));
               }
           },
           help)
        ->check([parse](const std::string& text) {
            const auto value = parse(text);
            return value ? std::string{} : value.error().text();
        })
        ->allow_extra_args(false);
}

}  // namespace

Result<Config> parse_disk(std::string_view text) {
    const Keys keys = TRY(Keys::parse(text, {"id", "path", "ro", "direct"}, kDiskForm));
    Config config;
    config.id = TRY(id_of(keys, text, kDiskForm));
    if (keys.value("path").empty() || !keys.value("ro").empty() || !keys.value("direct").empty()) {
        return fail(Code::invalid, "\"{}\" is not a disk; give {}", text, kDiskForm);
    }
    config.what = DiskConfig{keys.value("path"), keys.has("ro"), keys.has("direct")};
    return config;
}

Result<Config> parse_net(std::string_view text, DeviceSide side) {
    const Keys keys = TRY(Keys::parse(text, {"id", "tap", "mac"}, kNetForm));
    Config config;
    config.id = TRY(id_of(keys, text, kNetForm));
    if (keys.value("tap").empty()) {
        return fail(Code::invalid, "\"{}\" has no tap; give {}", text, kNetForm);
    }
    if (keys.has("mac") && side == DeviceSide::receive) {
        return fail(Code::invalid, "\"{}\": a guest that comes brings its address; leave `mac` out", text);
    }
    config.what =
        NetConfig{keys.value("tap"), keys.has("mac") ? TRY(parse_mac(keys.value("mac"))) : make_mac()};
    return config;
}

Result<Config> parse_console(std::string_view text) {
    return Config{"console", 0, ConsoleConfig{TRY(devices::parse_serial(text))}};
}

void add_device_options(CLI::App* app, std::vector<Config>& devices, DeviceSide side) {
    add(
        app, "--disk", devices, [](const std::string& text) { return parse_disk(text); },
        "Disk, a raw image or block device: id=NAME,path=FILE[,ro][,direct]; may be repeated");
    add(
        app, "--net", devices, [side](const std::string& text) { return parse_net(text, side); },
        std::string{"Network interface on a tap: id=NAME,tap=INTERFACE"} +
            (side == DeviceSide::run ? "[,mac=ADDRESS]" : "") + "; may be repeated");
    add(
        app, "--console", devices, [](const std::string& text) { return parse_console(text); },
        "Virtio console (hvc0 in Linux), with a back end as for --serial");
    if (side == DeviceSide::run) {
        app->add_flag_callback(
            "--rng",
            [&devices] {
                devices.push_back({"rng", 0, RngConfig{}});
            },
            "Virtio entropy device");
    }
}

Result<void> place_devices(std::vector<Config>& devices) {
    std::stable_sort(devices.begin(), devices.end(),
                     [](const Config& a, const Config& b) { return a.what.index() < b.what.index(); });
    if (devices.size() > devices::kVirtioWindows) {
        return fail(Code::limit, "{} virtio devices; a machine has at most {}", devices.size(),
                    devices::kVirtioWindows);
    }
    std::set<std::string> ids;
    for (unsigned i = 0; i < devices.size(); ++i) {
        devices[i].window = i;
        if (!ids.insert(devices[i].id).second) {
            return fail(Code::invalid, "two devices have the id \"{}\"; give each its own", devices[i].id);
        }
    }
    return {};
}

}  // namespace tools
