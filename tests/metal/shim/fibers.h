// Threads of one threadgroup as fibers of one CPU thread, taken up in any order.
//
// A fiber runs until it waits at a barrier or in an operation of its SIMD group; when all that it waits for have
// arrived at the same place, they go on. Every lane of a SIMD group has to take part, which is stricter than Metal.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace shim {

constexpr unsigned lanes = 32;
constexpr size_t stack_bytes = 64 << 10;
// What every Apple GPU grants a threadgroup.
constexpr size_t threadgroup_memory_limit = 32 << 10;
// Bytes after each threadgroup array that must stay as they were.
constexpr size_t canary_bytes = 64;
constexpr unsigned char poison = 0xff;  // NaN in every float format
constexpr unsigned char canary = 0xa5;

[[noreturn]] inline void fail(const std::string& what) {
    fprintf(stderr, "%s\n", what.c_str());
    exit(3);
}

enum class State { ready, at_threadgroup_barrier, in_simdgroup, done };

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool started;
    State state;
    const char* place;
    unsigned exchanges;
};

// Pseudo-random numbers for orders (xorshift).
struct Random {
    uint64_t state;
    uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
};

// 0 is forward, 1 is reverse, everything else a shuffle.
inline std::vector<unsigned> permutation(unsigned n, uint64_t order) {
    std::vector<unsigned> indices(n);
    for (unsigned i = 0; i < n; i++) indices[i] = order == 1 ? n - 1 - i : i;
    if (order > 1) {
        Random random{order * 0x9e3779b97f4a7c15u};
        for (unsigned i = n; i > 1; i--) std::swap(indices[i - 1], indices[random.next() % i]);
    }
    return indices;
}

class Threadgroup {
  public:
    // Barriers at this place ("file:line") are ignored: a mutant.
    std::string skipped;
    unsigned current = 0;

    void run(unsigned threads, uint64_t order, void (*body)()) {
        if (threads == 0 || threads % lanes != 0) fail("a threadgroup holds whole SIMD groups");
        memory.assign(threadgroup_memory_limit + 64 * canary_bytes, poison);
        arrays.clear();
        used = 0;
        prepare(threads, body);
        const auto indices = permutation(threads, order);
        // Forward and in reverse, a SIMD group goes as far as it can before the next one; shuffled, all go together.
        const unsigned together = order <= 1 ? lanes : threads;
        do {
            for (unsigned start = 0; start < threads; start += together) {
                do {
                    for (unsigned i = start; i < start + together; i++) {
                        if (fibers[indices[i]].state == State::ready) resume(indices[i]);
                    }
                } while (release_simdgroups() > 0);
            }
        } while (release());
        check_canaries();
    }

    void barrier(const char* place) {
        if (skipped == place) return;
        wait(State::at_threadgroup_barrier, place);
    }

    void simdgroup_barrier(const char* place) {
        if (skipped == place) return;
        wait(State::in_simdgroup, place);
    }

    // Every lane of the SIMD group gives a value and sees those of all others.
    template <typename T> const T* exchange(T value, const char* place) {
        static_assert(sizeof(T) == 4, "SIMD-group operations take 32-bit values");
        // Two banks, because a lane may go on to its next exchange while others still read this one.
        auto& bank = slots[fibers[current].exchanges++ % 2];
        memcpy(&bank[current], &value, 4);
        wait(State::in_simdgroup, place);
        return reinterpret_cast<const T*>(&bank[current / lanes * lanes]);
    }

    void* array(const char* place, size_t bytes) {
        auto known = arrays.find(place);
        if (known != arrays.end()) return &memory[known->second.first];
        used += (bytes + 15) / 16 * 16;
        if (used > threadgroup_memory_limit) {
            fail(std::string(place) + ": threadgroup memory of " + std::to_string(used) + " bytes");
        }
        size_t offset = used - (bytes + 15) / 16 * 16 + arrays.size() * canary_bytes;
        memset(&memory[offset + bytes], canary, canary_bytes);
        arrays[place] = {offset, bytes};
        return &memory[offset];
    }

  private:
    std::vector<Fiber> fibers;
    std::vector<char> stacks;
    std::vector<unsigned char> memory;
    std::map<std::string, std::pair<size_t, size_t>> arrays;
    size_t used = 0;
    uint32_t slots[2][1024];
    jmp_buf scheduler;
    void (*body)() = nullptr;

    static void enter(unsigned high, unsigned low) {
        auto self = reinterpret_cast<Threadgroup*>(uint64_t(high) << 32 | low);
        self->body();
        self->wait(State::done, "the end");
    }

    void prepare(unsigned threads, void (*what)()) {
        body = what;
        fibers.resize(threads);
        stacks.resize(threads * stack_bytes);
        for (unsigned i = 0; i < threads; i++) {
            Fiber& fiber = fibers[i];
            fiber.started = false;
            fiber.state = State::ready;
            fiber.exchanges = 0;
            getcontext(&fiber.start);
            fiber.start.uc_stack.ss_sp = &stacks[i * stack_bytes];
            fiber.start.uc_stack.ss_size = stack_bytes;
            fiber.start.uc_link = nullptr;
            auto self = reinterpret_cast<uint64_t>(this);
            makecontext(&fiber.start, reinterpret_cast<void (*)()>(&enter), 2, unsigned(self >> 32), unsigned(self));
        }
    }

    // Contexts only start fibers: jumps between them need no system calls.
    void resume(unsigned index) {
        current = index;
        Fiber& fiber = fibers[index];
        if (_setjmp(scheduler) != 0) return;
        if (fiber.started) _longjmp(fiber.at, 1);
        fiber.started = true;
        setcontext(&fiber.start);
    }

    void wait(State state, const char* place) {
        Fiber& fiber = fibers[current];
        fiber.state = state;
        fiber.place = place;
        if (_setjmp(fiber.at) == 0) _longjmp(scheduler, 1);
    }

    size_t release_simdgroups() {
        size_t released = 0;
        for (size_t start = 0; start < fibers.size(); start += lanes) {
            released += release(start, start + lanes, State::in_simdgroup);
        }
        return released;
    }

    // Lets go of all threads when they have arrived at a barrier; false when all are done.
    bool release() {
        size_t done = 0;
        const size_t released = release(0, fibers.size(), State::at_threadgroup_barrier);
        for (const Fiber& fiber : fibers) done += fiber.state == State::done;
        if (released == 0 && done < fibers.size()) {
            for (const Fiber& fiber : fibers) {
                if (fiber.state != State::done) {
                    fail(std::string(fiber.place) + ": not every thread arrives here: " + std::to_string(done) + " are done");
                }
            }
        }
        return done < fibers.size();
    }

    size_t release(size_t start, size_t end, State state) {
        for (size_t i = start; i < end; i++) {
            if (fibers[i].state != state || strcmp(fibers[i].place, fibers[start].place) != 0) return 0;
        }
        for (size_t i = start; i < end; i++) fibers[i].state = State::ready;
        return end - start;
    }

    void check_canaries() const {
        for (const auto& [place, array] : arrays) {
            for (size_t i = 0; i < canary_bytes; i++) {
                if (memory[array.first + array.second + i] != canary) fail(place + ": written beyond its end");
            }
        }
    }
};

inline Threadgroup threadgroup_state;

}  // namespace shim
