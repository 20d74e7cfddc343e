// What a process may do on its host by being who it is: its user, its capabilities, its descriptors.
#pragma once

#include <sys/types.h>

#include <span>
#include <string>

#include "vmm/base/result.hpp"

namespace tools {

struct User {
    std::string name;
    uid_t uid = 0;
    gid_t gid = 0;
};

// Not root: who wants root leaves --user out.
vmm::Result<User> find_user(const std::string& name);

// The process, which has one thread and is root's, becomes the user's: what it makes is his, and what he may
// not read it may not either, except with these capabilities, which it keeps.
vmm::Result<void> become(const User& user, std::span<const int> kept);

// Whatever capabilities the calling thread has left, if it is a user's; an error if it could still take
// root's place.
vmm::Result<void> drop_capabilities();

// All but the standard ones.
vmm::Result<void> close_inherited_descriptors();

}  // namespace tools
