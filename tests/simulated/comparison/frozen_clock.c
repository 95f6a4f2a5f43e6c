/* A clock that stands still until a test sets it, for a server that is started with this in LD_PRELOAD: frozen_clock.py.
 *
 * The time of day, in µs, is an int64 in the file that FROZEN_CLOCK names, and may be written at any time. What only
 * measures how long something takes goes on.
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

static volatile const int64_t *frozen(void) {
    static volatile const int64_t *at;
    if (!at) {
        const char *name = getenv("FROZEN_CLOCK");
        int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *at, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        if (mapped == MAP_FAILED) abort();
        at = mapped;
    }
    return at;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "clock_gettime");
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return real(clock, now);
    int64_t us = *frozen();
    now->tv_sec = us / 1000000;
    now->tv_nsec = us % 1000000 * 1000;
    return 0;
}

#include "../../support/time_of_day.h"
