
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_metrics.h"


const ngx_http_iothub_metrics_word_t
    ngx_http_iothub_metrics_statuses[NGX_HTTP_IOTHUB_METRICS_STATUSES] =
{
    { 204, "204" }, { 0, "none" }, { 200, "200" }, { 201, "201" },
    { 400, "400" }, { 401, "401" }, { 403, "403" }, { 404, "404" },
    { 408, "408" }, { 409, "409" }, { 412, "412" }, { 413, "413" },
    { 415, "415" }, { 429, "429" }, { 500, "500" }, { 502, "502" },
    { 503, "503" }, { 504, "504" }, { 0, "other" }
};


const ngx_http_iothub_metrics_word_t
    ngx_http_iothub_metrics_bounds[NGX_HTTP_IOTHUB_METRICS_BOUNDS] =
{
    { 5, "0.005" }, { 10, "0.01" }, { 25, "0.025" }, { 50, "0.05" },
    { 100, "0.1" }, { 250, "0.25" }, { 500, "0.5" }, { 1000, "1" },
    { 2500, "2.5" }, { 5000, "5" }, { 10000, "10" }, { 30000, "30" }
};


const char *const
    ngx_http_iothub_metrics_operations[NGX_HTTP_IOTHUB_METRICS_OPERATIONS] =
{
    "send", "create", "ask"
};


static void ngx_http_iothub_metrics_observe(
    ngx_http_iothub_metrics_histogram_t *h, ngx_msec_t time);


size_t
ngx_http_iothub_metrics_size(ngx_uint_t nslots)
{
    return sizeof(ngx_http_iothub_metrics_t)
           + (nslots - 1) * sizeof(ngx_http_iothub_metrics_slot_t);
}


void
ngx_http_iothub_metrics_init(ngx_http_iothub_metrics_t *metrics,
    ngx_uint_t nslots, ngx_shmtx_t *mutex)
{
    metrics->nslots = nslots;
    metrics->mutex = mutex;
}


ngx_http_iothub_metrics_counts_t *
ngx_http_iothub_metrics_slot(ngx_http_iothub_metrics_t *metrics,
    ngx_uint_t worker)
{
    return &metrics->slots[worker % metrics->nslots].counts;
}


void
ngx_http_iothub_metrics_call(ngx_http_iothub_metrics_counts_t *counts,
    ngx_http_iothub_operation_e operation, ngx_uint_t status,
    ngx_msec_t time)
{
    ngx_uint_t  i, n;

    /* a bit: 1, 2 or 4 */

    n = operation >> 1;

    for (i = 0; i < NGX_HTTP_IOTHUB_METRICS_STATUSES - 1; i++) {
        if (ngx_http_iothub_metrics_statuses[i].value == status) {
            break;
        }
    }

    ngx_http_iothub_metrics_add(&counts->calls[n][i], 1);
    ngx_http_iothub_metrics_observe(&counts->call_time[n], time);
}


void
ngx_http_iothub_metrics_repeated(ngx_http_iothub_metrics_counts_t *counts,
    ngx_http_iothub_operation_e operation, ngx_uint_t n)
{
    if (n) {
        ngx_http_iothub_metrics_add(
                  &counts->calls[operation >> 1][NGX_HTTP_IOTHUB_METRICS_NONE],
                  n);
        ngx_http_iothub_metrics_add(&counts->retries, n);
    }
}


void
ngx_http_iothub_metrics_delivery(ngx_http_iothub_metrics_t *metrics,
    ngx_http_iothub_metrics_counts_t *counts, ngx_http_iothub_result_e result,
    ngx_msec_t time, time_t now)
{
    ngx_http_iothub_metrics_add(&counts->deliveries[result], 1);
    ngx_http_iothub_metrics_observe(&counts->delivery_time, time);

    switch (result) {

    case NGX_HTTP_IOTHUB_DELIVERED:

        ngx_http_iothub_metrics_happened(&counts->delivered, now);

        /* as a rule, it is only read: workers do not take it in turns */

        if (__atomic_load_n(&metrics->failing, __ATOMIC_RELAXED)) {
            __atomic_store_n(&metrics->failing, 0, __ATOMIC_RELAXED);
        }

        break;

    case NGX_HTTP_IOTHUB_UNAVAILABLE:
    case NGX_HTTP_IOTHUB_CREDENTIALS:
    case NGX_HTTP_IOTHUB_MISCONFIGURED:
    case NGX_HTTP_IOTHUB_TIMEOUT:

        ngx_http_iothub_metrics_add(&metrics->failing, 1);
        ngx_http_iothub_metrics_happened(&metrics->failed_at, now);
        ngx_http_iothub_metrics_happened(&metrics->failed_by, result);
        break;

    default:
        break;
    }
}


static void
ngx_http_iothub_metrics_observe(ngx_http_iothub_metrics_histogram_t *h,
    ngx_msec_t time)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_IOTHUB_METRICS_BOUNDS; i++) {
        if (time <= ngx_http_iothub_metrics_bounds[i].value) {
            break;
        }
    }

    ngx_http_iothub_metrics_add(&h->counts[i], 1);
    ngx_http_iothub_metrics_add(&h->sum, time);
}


void
ngx_http_iothub_metrics_failed(ngx_http_iothub_metrics_t *metrics,
    ngx_http_iothub_metrics_error_t *error)
{
    if (!ngx_shmtx_trylock(metrics->mutex)) {
        return;
    }

    metrics->error = *error;

    ngx_shmtx_unlock(metrics->mutex);
}


void
ngx_http_iothub_metrics_sum(ngx_http_iothub_metrics_t *metrics,
    ngx_http_iothub_metrics_counts_t *sum,
    ngx_http_iothub_metrics_error_t *error)
{
    uint64_t    value, *to, *from;
    ngx_uint_t  i, n, times, slot;

    ngx_memzero(sum, sizeof(ngx_http_iothub_metrics_counts_t));

    /* first counters, then times */

    n = sizeof(ngx_http_iothub_metrics_counts_t) / sizeof(uint64_t);
    times = offsetof(ngx_http_iothub_metrics_counts_t, delivered)
            / sizeof(uint64_t);
    to = (uint64_t *) sum;

    for (slot = 0; slot < metrics->nslots; slot++) {

        from = (uint64_t *) &metrics->slots[slot];

        for (i = 0; i < n; i++) {
            value = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
            to[i] = (i < times) ? to[i] + value : ngx_max(to[i], value);
        }
    }

    ngx_shmtx_lock(metrics->mutex);

    *error = metrics->error;

    ngx_shmtx_unlock(metrics->mutex);
}
