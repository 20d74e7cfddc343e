#include "tools/vmm/vmm_main.hpp"

int main(int argc, char** argv) {
    return tools::vmm_main(argc, argv, nullptr);
}
