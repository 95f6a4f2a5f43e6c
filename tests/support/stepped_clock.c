/* A clock that a test may step, for a server that is started with this in LD_PRELOAD: tests/support/stepped_clock.py.
 *
 * How far it is off, in ms, is an int64 in the file that STEPPED_CLOCK names, and may be written at any time. The time of
 * day is stepped; what only measures how long something takes is not.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t offset_ms(void) {
    static volatile const int64_t *offset;
    static int failed;
    if (!offset && !failed) {
        const char *name = getenv("STEPPED_CLOCK");
        int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        if (mapped == MAP_FAILED) failed = 1;
        else offset = mapped;
    }
    return offset ? *offset : 0;
}

static void step(struct timespec *now) {
    int64_t ms = offset_ms();
    int64_t nanoseconds = now->tv_nsec + ms % 1000 * 1000000;
    now->tv_sec += ms / 1000;
    if (nanoseconds < 0) now->tv_sec--, nanoseconds += 1000000000;
    if (nanoseconds >= 1000000000) now->tv_sec++, nanoseconds -= 1000000000;
    now->tv_nsec = nanoseconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) step(now);
    return failed;
}

#include "time_of_day.h"
