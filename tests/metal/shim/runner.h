// Reads one launch from standard input, runs it, and writes all buffers to standard output.
//
// The request is lines of text up to "data", then the bytes of the buffers in the order of their lines. The file that
// includes this one defines `kernels` and `constants` from the kernels' source.
#pragma once

// What follows is no kernel.
#undef kernel
#undef device
#undef constant
#undef thread
#undef threadgroup

#include <unistd.h>

#include <functional>
#include <iostream>
#include <sstream>

#include "fibers.h"

namespace shim {

struct Position {
    unsigned x, y, z;
    operator unsigned() const { return x; }
    operator metal::uint2() const { return {x, y}; }
    operator metal::uint3() const { return {x, y, z}; }
};

// Where the running thread stands.
struct Where {
    Position groups, group, threads, local;
    unsigned index() const { return (local.z * threads.y + local.y) * threads.x + local.x; }
    Position in_grid() const {
        return {group.x * threads.x + local.x, group.y * threads.y + local.y, group.z * threads.z + local.z};
    }
};

struct Kernel {
    const char* name;
    void (*launch)(void** buffers, const Where& where);
    // One character per buffer: r is read only, w may be written.
    const char* access;
};

struct Constant {
    unsigned index;
    void* value;
    size_t bytes;
};

// Ends at a page that faults, so that nothing beyond is touched unseen.
struct Buffer {
    unsigned index;
    size_t bytes, mapped;
    unsigned char *map, *start;

    Buffer(unsigned index, size_t bytes) : index(index), bytes(bytes) {
        const size_t page = size_t(sysconf(_SC_PAGESIZE));
        mapped = (bytes + page - 1) / page * page;
        map = static_cast<unsigned char*>(mmap(nullptr, mapped + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (map == MAP_FAILED || mprotect(map + mapped, page, PROT_NONE) != 0) fail("no memory for a buffer");
        start = map + mapped - bytes;
    }
};

struct Request {
    std::string kernel;
    uint64_t order = 0;
    Position groups{1, 1, 1}, threads{1, 1, 1};
    std::vector<std::pair<unsigned, uint64_t>> constants;
    std::vector<Buffer> buffers;
};

inline Request read_request() {
    Request request;
    for (std::string line; std::getline(std::cin, line) && line != "data";) {
        std::istringstream words(line);
        std::string key;
        words >> key;
        unsigned index = 0;
        uint64_t value = 0;
        auto position = [&](Position& to) { words >> to.x >> to.y >> to.z; };
        if (key == "kernel") words >> request.kernel;
        else if (key == "order") words >> request.order;
        else if (key == "skip") words >> threadgroup_state.skipped;
        else if (key == "groups") position(request.groups);
        else if (key == "threads") position(request.threads);
        else if (key == "constant") words >> index >> value, request.constants.push_back({index, value});
        else if (key == "buffer") words >> index >> value, request.buffers.emplace_back(index, value);
        else fail("unknown line: " + line);
    }
    for (Buffer& buffer : request.buffers) std::cin.read(reinterpret_cast<char*>(buffer.start), std::streamsize(buffer.bytes));
    if (!std::cin) fail("the request is cut off");
    return request;
}

inline Where where;
inline const Kernel* running;
inline void* bound[31];

inline void run_thread() {
    Where here = where;
    const unsigned index = threadgroup_state.current;
    const Position& size = here.threads;
    here.local = {index % size.x, index / size.x % size.y, index / (size.x * size.y)};
    running->launch(bound, here);
}

inline void bind(Request& request) {
    for (Buffer& buffer : request.buffers) {
        bound[buffer.index] = buffer.start;
        const bool read_only = buffer.index < strlen(running->access) && running->access[buffer.index] == 'r';
        if (read_only && buffer.mapped > 0) mprotect(buffer.map, buffer.mapped, PROT_READ);
    }
    for (size_t i = 0; i < strlen(running->access); i++) {
        if (bound[i] == nullptr) fail("buffer " + std::to_string(i) + " is not bound");
    }
}

template <size_t N, size_t M> int run(const Kernel (&kernels)[N], const Constant (&constants)[M]) {
    std::ios::sync_with_stdio(false);
    Request request = read_request();
    for (const Kernel& candidate : kernels) {
        if (request.kernel == candidate.name) running = &candidate;
    }
    if (running == nullptr) fail("there is no kernel " + request.kernel);
    for (const auto& [index, value] : request.constants) {
        for (const Constant& candidate : constants) {
            if (candidate.index == index) memcpy(candidate.value, &value, candidate.bytes);
        }
    }
    bind(request);
    const Position& n = request.groups;
    for (unsigned group : permutation(n.x * n.y * n.z, request.order)) {
        where = {n, {group % n.x, group / n.x % n.y, group / (n.x * n.y)}, request.threads, {0, 0, 0}};
        threadgroup_state.run(request.threads.x * request.threads.y * request.threads.z, request.order, run_thread);
    }
    for (const Buffer& buffer : request.buffers) std::cout.write(reinterpret_cast<char*>(buffer.start), std::streamsize(buffer.bytes));
    std::cout.flush();
    return std::cout ? 0 : 1;
}

}  // namespace shim
