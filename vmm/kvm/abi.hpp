// <linux/kvm.h>, with the sizes it has in C. Include this, never that.
//
// The headers of Linux 6.1 declare a flexible array through a struct with an empty member, which has size 1
// in C++, not 0 (linux/stddef.h; newer headers have a variant for C++). The sizes are part of the ioctl
// numbers, so KVM would answer EINVAL.
#pragma once

#include <linux/stddef.h>

#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]

#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 && sizeof(kvm_msr_list) == 4 &&
              sizeof(kvm_irq_routing) == 8 && sizeof(kvm_xsave) == 4096);
