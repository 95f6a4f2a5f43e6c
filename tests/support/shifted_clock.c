/* A clock that is ahead by SHIFT_DAYS, for every process that is started with this in LD_PRELOAD: `make shifted`.
 *
 * The time of day is shifted, and the times of files; what only measures how long something takes is not. (libfaketime 0.9.10
 * does not do for this: with its clock monotonic shifted Python's locks never time out, without it time.sleep fails.)
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

static time_t shift(void) {
    static time_t seconds = -1;
    if (seconds == -1) {
        const char *days = getenv("SHIFT_DAYS");
        seconds = days ? (time_t)(atof(days) * 86400) : 0;
    }
    return seconds;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

#include "time_of_day.h"

#define SHIFTED(kind, name, parameters, arguments)                                                                             \
    int name parameters {                                                                                                      \
        int failed = REAL(name) arguments;                                                                                     \
        if (!failed) {                                                                                                         \
            found->st_atim.tv_sec += shift();                                                                                  \
            found->st_mtim.tv_sec += shift();                                                                                  \
            found->st_ctim.tv_sec += shift();                                                                                  \
        }                                                                                                                      \
        return failed;                                                                                                         \
    }

SHIFTED(stat, stat, (const char *restrict path, struct stat *restrict found), (path, found))
SHIFTED(stat, lstat, (const char *restrict path, struct stat *restrict found), (path, found))
SHIFTED(stat, fstat, (int file, struct stat *found), (file, found))
SHIFTED(stat, fstatat, (int at, const char *restrict path, struct stat *restrict found, int flags), (at, path, found, flags))
SHIFTED(stat64, stat64, (const char *restrict path, struct stat64 *restrict found), (path, found))
SHIFTED(stat64, lstat64, (const char *restrict path, struct stat64 *restrict found), (path, found))
SHIFTED(stat64, fstat64, (int file, struct stat64 *found), (file, found))
SHIFTED(stat64, fstatat64, (int at, const char *restrict path, struct stat64 *restrict found, int flags), (at, path, found, flags))

static const struct timespec *unshifted(const struct timespec times[2], struct timespec as_they_are[2]) {
    if (!times) return NULL;
    for (int i = 0; i < 2; i++) {
        as_they_are[i] = times[i];
        if (times[i].tv_nsec != UTIME_NOW && times[i].tv_nsec != UTIME_OMIT) as_they_are[i].tv_sec -= shift();
    }
    return as_they_are;
}

int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
    struct timespec as_they_are[2];
    return REAL(utimensat)(at, path, unshifted(times, as_they_are), flags);
}

int futimens(int file, const struct timespec times[2]) {
    struct timespec as_they_are[2];
    return REAL(futimens)(file, unshifted(times, as_they_are));
}
