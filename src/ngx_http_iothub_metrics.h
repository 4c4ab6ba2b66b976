
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * metrics: what the gateway has done for a hub, counted in its zone.
 *
 * Each worker counts in a slot of its own by relaxed atomic additions, so
 * that counting waits for nobody and is exact although the old and the new
 * workers of a reload share slots.  Who reads adds the slots up.
 */

#ifndef _NGX_HTTP_IOTHUB_METRICS_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_METRICS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_hub_error.h"
#include "ngx_http_iothub_source.h"


/* bounds of a histogram, and one more for what is above the last */

#define NGX_HTTP_IOTHUB_METRICS_BOUNDS    12

/* see ngx_http_iothub_metrics_statuses: their number, and which is none */

#define NGX_HTTP_IOTHUB_METRICS_STATUSES  19
#define NGX_HTTP_IOTHUB_METRICS_NONE      1

#define NGX_HTTP_IOTHUB_METRICS_SLOTS     64

/* send, create, ask */

#define NGX_HTTP_IOTHUB_METRICS_OPERATIONS  3


/* how many took so long: between a bound and the one before it */

typedef struct {
    uint64_t   counts[NGX_HTTP_IOTHUB_METRICS_BOUNDS + 1];
    uint64_t   sum;                /* milliseconds */
} ngx_http_iothub_metrics_histogram_t;


typedef struct {
    uint64_t   webhooks[NGX_HTTP_IOTHUB_SOURCES][NGX_HTTP_IOTHUB_RESULTS];
    uint64_t   events[NGX_HTTP_IOTHUB_RESULTS];
    uint64_t   deliveries[NGX_HTTP_IOTHUB_RESULTS];
    uint64_t   calls[NGX_HTTP_IOTHUB_METRICS_OPERATIONS]
                    [NGX_HTTP_IOTHUB_METRICS_STATUSES];
    uint64_t   retries;
    uint64_t   blocks;             /* accepted */
    uint64_t   created;            /* identities */

    ngx_http_iothub_metrics_histogram_t  delivery_time;
    ngx_http_iothub_metrics_histogram_t  call_time
                                      [NGX_HTTP_IOTHUB_METRICS_OPERATIONS];

    /* when it happened last, seconds; 0: never */

    uint64_t   delivered;
    uint64_t   signed_at;          /* a token */
} ngx_http_iothub_metrics_counts_t;


/* a cache line is one worker's alone */

typedef union {
    ngx_http_iothub_metrics_counts_t  counts;
    u_char     lines[ngx_align(sizeof(ngx_http_iothub_metrics_counts_t), 64)];
} ngx_http_iothub_metrics_slot_t;


/* the delivery that failed last; texts are cut off, not ended by a zero */

typedef struct {
    uint64_t                  time;        /* seconds; 0: none yet */
    ngx_http_iothub_result_e  result;
    ngx_uint_t                status;      /* of the last call */
    u_char                    device[128];
    u_char                    step[8];
    u_char                    error[NGX_HTTP_IOTHUB_HUB_ERROR_NAME_MAX];
    u_char                    request_id[64];
    u_char                    detail[160];
} ngx_http_iothub_metrics_error_t;


typedef struct {
    uint64_t                         nslots;
    uint64_t                         failing;    /* deliveries in a row */
    uint64_t                         failed_at;  /* the last of them */
    uint64_t                         failed_by;  /* its result */

    ngx_shmtx_t                     *mutex;      /* of the error alone */
    ngx_http_iothub_metrics_error_t  error;

    ngx_http_iothub_metrics_slot_t   slots[1];
} ngx_http_iothub_metrics_t;


typedef struct {
    ngx_uint_t                value;
    const char               *text;
} ngx_http_iothub_metrics_word_t;


/* The statuses that are told apart; the last stands for all others. */

extern const ngx_http_iothub_metrics_word_t
    ngx_http_iothub_metrics_statuses[NGX_HTTP_IOTHUB_METRICS_STATUSES];

/* The bounds of all histograms: milliseconds, and seconds as text. */

extern const ngx_http_iothub_metrics_word_t
    ngx_http_iothub_metrics_bounds[NGX_HTTP_IOTHUB_METRICS_BOUNDS];

/* The operations, in their order. */

extern const char *const
    ngx_http_iothub_metrics_operations[NGX_HTTP_IOTHUB_METRICS_OPERATIONS];


/* The bytes that the metrics of so many slots need, at least of one. */

size_t ngx_http_iothub_metrics_size(ngx_uint_t nslots);

/*
 * Makes metrics of zeroed shared memory of that size.  The mutex, of the
 * same memory, is held while the last error is written or read.
 */

void ngx_http_iothub_metrics_init(ngx_http_iothub_metrics_t *metrics,
    ngx_uint_t nslots, ngx_shmtx_t *mutex);

/* The slot of a worker. */

ngx_http_iothub_metrics_counts_t *ngx_http_iothub_metrics_slot(
    ngx_http_iothub_metrics_t *metrics, ngx_uint_t worker);

/* Remembers that something has happened now. */

#define ngx_http_iothub_metrics_happened(at, now)                             \
    __atomic_store_n(at, (uint64_t) (now), __ATOMIC_RELAXED)

/* Counts n more. */

#define ngx_http_iothub_metrics_add(counter, n)                               \
    (void) __atomic_fetch_add(counter, n, __ATOMIC_RELAXED)

/*
 * Counts the end of a call: status is the answer's, 0 for none, and time how
 * long it took, ms.
 */

void ngx_http_iothub_metrics_call(ngx_http_iothub_metrics_counts_t *counts,
    ngx_http_iothub_operation_e operation, ngx_uint_t status,
    ngx_msec_t time);

/*
 * Counts n calls without an answer that nginx itself repeated: their time is
 * in that of the call that was their last repeat.
 */

void ngx_http_iothub_metrics_repeated(
    ngx_http_iothub_metrics_counts_t *counts,
    ngx_http_iothub_operation_e operation, ngx_uint_t n);

/*
 * Counts the end of a delivery that took time ms and ended at now, seconds.
 */

void ngx_http_iothub_metrics_delivery(ngx_http_iothub_metrics_t *metrics,
    ngx_http_iothub_metrics_counts_t *counts, ngx_http_iothub_result_e result,
    ngx_msec_t time, time_t now);

/*
 * Remembers an error, unless another is being remembered at this moment.
 */

void ngx_http_iothub_metrics_failed(ngx_http_iothub_metrics_t *metrics,
    ngx_http_iothub_metrics_error_t *error);

/* Copies a text into one of an error's. */

#define ngx_http_iothub_metrics_text(text, src)                               \
    ngx_memcpy(text, (src)->data, ngx_min((src)->len, sizeof(text)))

/*
 * Adds up all slots and copies the last error; sum and error are the
 * caller's.
 */

void ngx_http_iothub_metrics_sum(ngx_http_iothub_metrics_t *metrics,
    ngx_http_iothub_metrics_counts_t *sum,
    ngx_http_iothub_metrics_error_t *error);


#endif /* _NGX_HTTP_IOTHUB_METRICS_H_INCLUDED_ */
