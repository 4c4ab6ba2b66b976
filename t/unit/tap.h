
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * TAP for the C unit tests.  Included once, by the file that has main().
 *
 *     plan(3);                       or done_testing() at the end
 *     ok(x == 1, "x is %d", 1);
 *     is(rc, NGX_OK, "parsed");
 *     is_str(&str, "text", "host");  an ngx_str_t against a C string
 *     note("...");
 *     return done_testing();
 */


#ifndef _TAP_H_INCLUDED_
#define _TAP_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <stdarg.h>
#include <stdio.h>


static unsigned  tap_planned;
static unsigned  tap_run;
static unsigned  tap_failed;


#define TAP_FN  static __attribute__((unused))

#define ok(cond, ...)                                                         \
    tap_result(!!(cond), __FILE__, __LINE__, __VA_ARGS__)

#define is(got, want, ...)                                                    \
    tap_is((long long) (got), (long long) (want), __FILE__, __LINE__,         \
           __VA_ARGS__)

#define is_str(got, want, ...)                                                \
    tap_is_str((got), (want), __FILE__, __LINE__, __VA_ARGS__)


TAP_FN void
plan(unsigned n)
{
    tap_planned = n;
    printf("1..%u\n", n);
}


__attribute__((format(printf, 1, 2)))
TAP_FN void
note(const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    printf("# ");
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
}


TAP_FN int
tap_vresult(int pass, const char *file, int line, const char *fmt,
    va_list args)
{
    printf("%sok %u - ", pass ? "" : "not ", ++tap_run);
    vprintf(fmt, args);
    printf("\n");

    if (!pass) {
        tap_failed++;
        printf("# failed at %s:%d\n", file, line);
    }

    /* a test that dies must not take its results along */
    fflush(stdout);

    return pass;
}


__attribute__((format(printf, 4, 5)))
TAP_FN int
tap_result(int pass, const char *file, int line, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    tap_vresult(pass, file, line, fmt, args);
    va_end(args);

    return pass;
}


__attribute__((format(printf, 5, 6)))
TAP_FN int
tap_is(long long got, long long want, const char *file, int line,
    const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    tap_vresult(got == want, file, line, fmt, args);
    va_end(args);

    if (got != want) {
        note("got %lld, expected %lld", got, want);
    }

    return got == want;
}


__attribute__((format(printf, 5, 6)))
TAP_FN int
tap_is_str(ngx_str_t *got, const char *want, const char *file, int line,
    const char *fmt, ...)
{
    int      pass;
    va_list  args;

    pass = got->len == ngx_strlen(want)
           && (got->len == 0
               || ngx_memcmp(got->data, want, got->len) == 0);

    va_start(args, fmt);
    tap_vresult(pass, file, line, fmt, args);
    va_end(args);

    if (!pass) {
        note("got \"%.*s\", expected \"%s\"", (int) got->len,
             got->data ? (char *) got->data : "", want);
    }

    return pass;
}


/* ends the test program: the value is main()'s */

TAP_FN int
done_testing(void)
{
    if (tap_planned == 0) {
        printf("1..%u\n", tap_run);

    } else if (tap_planned != tap_run) {
        note("planned %u tests but ran %u", tap_planned, tap_run);
        return 1;
    }

    if (tap_failed) {
        note("%u of %u tests failed", tap_failed, tap_run);
    }

    return tap_failed || tap_run == 0;
}


#endif /* _TAP_H_INCLUDED_ */
