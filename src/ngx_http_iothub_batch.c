
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_batch.h"


/* devices of one webhook that are delivered to at once */

#define NGX_HTTP_IOTHUB_BATCH_ACTIVE  16


/* the events of one device that are still to be delivered */

typedef struct {
    ngx_http_iothub_batch_t         *batch;
    ngx_http_iothub_batch_event_t  **events;
    ngx_uint_t                       nevents;
    ngx_uint_t                       sent;      /* in the running delivery */
    ngx_uint_t                       alone;     /* so many, one by one */
    ngx_http_iothub_delivery_t      *delivery;
} ngx_http_iothub_batch_queue_t;


static ngx_int_t ngx_http_iothub_batch_queues(ngx_http_iothub_batch_t *b,
    ngx_http_iothub_batch_event_t **events, ngx_uint_t n);
static int ngx_libc_cdecl ngx_http_iothub_batch_cmp(const void *one,
    const void *two);
static ngx_uint_t ngx_http_iothub_batch_same(
    ngx_http_iothub_batch_event_t *one, ngx_http_iothub_batch_event_t *two);
static void ngx_http_iothub_batch_run(ngx_http_iothub_batch_t *b);
static ngx_int_t ngx_http_iothub_batch_deliver(
    ngx_http_iothub_batch_queue_t *q);
static ngx_uint_t ngx_http_iothub_batch_fit(ngx_http_iothub_batch_queue_t *q);
static void ngx_http_iothub_batch_delivered(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_batch_mark(ngx_http_iothub_batch_queue_t *q,
    ngx_uint_t n, ngx_http_iothub_result_e result, const char *detail);
static void ngx_http_iothub_batch_add(ngx_http_iothub_delivery_t *total,
    ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_batch_finish(ngx_http_iothub_batch_t *b);
static ngx_uint_t ngx_http_iothub_batch_rank(ngx_http_iothub_result_e result);


ngx_int_t
ngx_http_iothub_batch_start(ngx_http_iothub_batch_t *b)
{
    ngx_uint_t                       i, n;
    ngx_http_iothub_batch_event_t   *event, **events;

    event = b->events.elts;

    events = ngx_palloc(b->request->pool, (b->events.nelts + 1)
                                  * sizeof(ngx_http_iothub_batch_event_t *));
    if (events == NULL) {
        return NGX_ERROR;
    }

    for (i = 0, n = 0; i < b->events.nelts; i++) {
        event[i].n = i;

        if (event[i].result == NGX_HTTP_IOTHUB_NO_RESULT) {
            events[n++] = &event[i];
        }
    }

    if (ngx_http_iothub_batch_queues(b, events, n) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_iothub_batch_run(b);

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_batch_queues(ngx_http_iothub_batch_t *b,
    ngx_http_iothub_batch_event_t **events, ngx_uint_t n)
{
    ngx_uint_t                      i;
    ngx_http_iothub_batch_queue_t  *q;

    ngx_qsort(events, n, sizeof(ngx_http_iothub_batch_event_t *),
              ngx_http_iothub_batch_cmp);

    if (ngx_array_init(&b->queues, b->request->pool, 4,
                       sizeof(ngx_http_iothub_batch_queue_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    q = NULL;

    for (i = 0; i < n; i++) {

        if (q && ngx_http_iothub_batch_same(events[i], q->events[0])) {
            q->nevents++;
            continue;
        }

        q = ngx_array_push(&b->queues);
        if (q == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(q, sizeof(ngx_http_iothub_batch_queue_t));
        q->batch = b;
        q->events = &events[i];
        q->nevents = 1;
    }

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_http_iothub_batch_cmp(const void *one, const void *two)
{
    int                             rc;
    ngx_http_iothub_batch_event_t  *first, *second;

    first = *(ngx_http_iothub_batch_event_t **) one;
    second = *(ngx_http_iothub_batch_event_t **) two;

    if (first->hub != second->hub) {
        return (first->hub < second->hub) ? -1 : 1;
    }

    if (first->device_id.len != second->device_id.len) {
        return (first->device_id.len < second->device_id.len) ? -1 : 1;
    }

    rc = ngx_memcmp(first->device_id.data, second->device_id.data,
                    first->device_id.len);

    if (rc) {
        return rc;
    }

    return (first->n < second->n) ? -1 : 1;
}


static ngx_uint_t
ngx_http_iothub_batch_same(ngx_http_iothub_batch_event_t *one,
    ngx_http_iothub_batch_event_t *two)
{
    return one->hub == two->hub
           && one->device_id.len == two->device_id.len
           && ngx_memcmp(one->device_id.data, two->device_id.data,
                         one->device_id.len)
              == 0;
}


/* The batch may be gone when this returns, with its request. */

static void
ngx_http_iothub_batch_run(ngx_http_iothub_batch_t *b)
{
    ngx_http_iothub_batch_queue_t  *q;

    /* a delivery that ends at once comes back here */

    if (b->starting || b->done) {
        return;
    }

    b->starting = 1;
    q = b->queues.elts;

    while (b->next < b->queues.nelts
           && b->active < NGX_HTTP_IOTHUB_BATCH_ACTIVE)
    {
        if (q[b->next].nevents == 0) {
            b->next++;
            continue;
        }

        if (q[b->next].delivery) {

            /* it goes on by itself */

            b->next++;
            continue;
        }

        if (ngx_http_iothub_batch_deliver(&q[b->next]) != NGX_OK) {
            ngx_http_iothub_batch_mark(&q[b->next], q[b->next].nevents,
                                       NGX_HTTP_IOTHUB_UNAVAILABLE,
                                       "the gateway is out of memory");
        }
    }

    b->starting = 0;

    if (b->active == 0 && b->next == b->queues.nelts) {
        ngx_http_iothub_batch_finish(b);
    }
}


static ngx_int_t
ngx_http_iothub_batch_deliver(ngx_http_iothub_batch_queue_t *q)
{
    ngx_uint_t                       i;
    ngx_pool_t                      *pool;
    ngx_http_iothub_message_t      **messages;
    ngx_http_iothub_delivery_t      *d;

    pool = q->batch->request->pool;

    d = ngx_pcalloc(pool, sizeof(ngx_http_iothub_delivery_t));
    if (d == NULL) {
        return NGX_ERROR;
    }

    q->sent = ngx_http_iothub_batch_fit(q);

    if (q->sent == 1) {
        d->message = q->events[0]->message;

    } else {
        messages = ngx_palloc(pool, q->sent
                                    * sizeof(ngx_http_iothub_message_t *));
        if (messages == NULL) {
            return NGX_ERROR;
        }

        for (i = 0; i < q->sent; i++) {
            messages[i] = &q->events[i]->message;
        }

        if (ngx_http_iothub_message_batch(pool, messages, q->sent,
                                          &d->message)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    d->request = q->batch->request;
    d->hub = q->events[0]->hub;
    d->device_id = q->events[0]->device_id;
    d->may_create = q->events[0]->may_create;
    d->deadline = q->batch->deadline;
    d->handler = ngx_http_iothub_batch_delivered;
    d->data = q;

    q->delivery = d;
    q->batch->active++;

    ngx_http_iothub_delivery_start(d);

    return NGX_OK;
}


/* how many of the next events go together */

static ngx_uint_t
ngx_http_iothub_batch_fit(ngx_http_iothub_batch_queue_t *q)
{
    size_t      size;
    ngx_uint_t  n;

    if (q->alone) {
        return 1;
    }

    size = sizeof("[]") - 1;

    for (n = 0; n < q->nevents; n++) {

        size += ngx_http_iothub_message_batch_size(&q->events[n]->message);

        if (n
            && (size > NGX_HTTP_IOTHUB_MESSAGE_BATCH_MAX
                || q->events[n]->may_create != q->events[0]->may_create))
        {
            break;
        }
    }

    return n;
}


static void
ngx_http_iothub_batch_delivered(ngx_http_iothub_delivery_t *d)
{
    ngx_http_iothub_batch_queue_t  *q = d->data;

    ngx_uint_t                starting;
    ngx_http_iothub_batch_t  *b;

    b = q->batch;
    b->active--;
    q->delivery = NULL;

    ngx_http_iothub_batch_add(b->total, d);

    if (d->result == NGX_HTTP_IOTHUB_REFUSED && q->sent > 1) {

        /* one of them may be at fault: each by itself */

        q->alone = q->sent;

    } else if (d->result == NGX_HTTP_IOTHUB_DELIVERED
               || d->result == NGX_HTTP_IOTHUB_REFUSED)
    {
        ngx_http_iothub_batch_mark(q, q->sent, d->result, d->detail);

    } else {

        /* no more is tried with this device */

        ngx_http_iothub_batch_mark(q, q->nevents, d->result, d->detail);
    }

    /* the next one may end at once, and must not finish the batch from here */

    starting = b->starting;
    b->starting = 1;

    if (q->nevents
        && ngx_http_iothub_batch_deliver(q) != NGX_OK)
    {
        ngx_http_iothub_batch_mark(q, q->nevents,
                                   NGX_HTTP_IOTHUB_UNAVAILABLE,
                                   "the gateway is out of memory");
    }

    b->starting = starting;

    ngx_http_iothub_batch_run(b);
}


static void
ngx_http_iothub_batch_mark(ngx_http_iothub_batch_queue_t *q, ngx_uint_t n,
    ngx_http_iothub_result_e result, const char *detail)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        q->events[i]->result = result;
        q->events[i]->detail = detail;
    }

    q->events += n;
    q->nevents -= n;
    q->alone -= ngx_min(q->alone, n);
}


static void
ngx_http_iothub_batch_add(ngx_http_iothub_delivery_t *total,
    ngx_http_iothub_delivery_t *d)
{
    ngx_uint_t  i, n;

    n = ngx_min(d->calls, NGX_HTTP_IOTHUB_DELIVERY_STATUSES);

    for (i = 0; i < n; i++) {

        if (total->calls < NGX_HTTP_IOTHUB_DELIVERY_STATUSES) {
            total->statuses[total->calls] = d->statuses[i];
        }

        total->calls++;
    }

    total->tries += d->tries;
    total->running |= d->running;

    if (total->identity == NULL) {
        total->identity = d->identity;
    }

    if (d->result != NGX_HTTP_IOTHUB_DELIVERED) {
        total->hub_error = d->hub_error;
        total->hub_request_id = d->hub_request_id;
        total->retry_after = ngx_max(total->retry_after, d->retry_after);

    } else if (total->hub_error.len == 0) {
        total->hub_request_id = d->hub_request_id;
    }
}


static void
ngx_http_iothub_batch_finish(ngx_http_iothub_batch_t *b)
{
    u_char                         *p;
    size_t                          len;
    const char                     *detail;
    ngx_uint_t                      i, delivered, filtered;
    ngx_http_iothub_batch_event_t  *event;

    b->done = 1;
    b->result = NGX_HTTP_IOTHUB_FILTERED;
    delivered = 0;
    filtered = 0;
    event = b->events.elts;

    for (i = 0; i < b->events.nelts; i++) {

        delivered += (event[i].result == NGX_HTTP_IOTHUB_DELIVERED);
        filtered += (event[i].result == NGX_HTTP_IOTHUB_FILTERED);

        if (ngx_http_iothub_batch_rank(event[i].result)
            > ngx_http_iothub_batch_rank(b->result))
        {
            b->result = event[i].result;
            b->detail = event[i].detail;
            b->shown = i;
        }
    }

    b->total->ended = ngx_current_msec;

    if (delivered + filtered < b->events.nelts) {

        detail = b->detail ? b->detail : "-";
        len = sizeof(" of  events were delivered,  were filtered: ")
              + 3 * NGX_INT_T_LEN + ngx_strlen(detail);

        p = ngx_pnalloc(b->request->pool, len);

        if (p) {
            b->detail = (char *) p;
            ngx_sprintf(p, "%ui of %ui events were delivered, %ui were "
                        "filtered: %s%Z", delivered, b->events.nelts,
                        filtered, detail);
        }
    }

    b->handler(b);
}


/*
 * What the sender is told of several results: what it should repeat comes
 * before what repeating cannot change.
 */

static ngx_uint_t
ngx_http_iothub_batch_rank(ngx_http_iothub_result_e result)
{
    if (ngx_http_iothub_results[result].success) {
        return result == NGX_HTTP_IOTHUB_DELIVERED;
    }

    return (ngx_http_iothub_results[result].rejectable
            ? 2 : 2 + NGX_HTTP_IOTHUB_RESULTS)
           + result;
}
