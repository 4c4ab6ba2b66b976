
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_report.h"
#include "ngx_http_iothub_webhook.h"


#define NGX_HTTP_IOTHUB_REPORT_BUFFER   (4 * NGX_HTTP_IOTHUB_REPORT_LINE)

/* deliveries in a row that fail before a hub is not usable, and for how long */

#define NGX_HTTP_IOTHUB_REPORT_FAILING  3
#define NGX_HTTP_IOTHUB_REPORT_FAILED   60


void
ngx_http_iothub_report_snapshot(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_snapshot_t *snapshot)
{
    ngx_uint_t                      i;
    ngx_http_iothub_report_gate_t  *gate;

    snapshot->hub = hub;

    ngx_http_iothub_metrics_sum(hub->shm->metrics, &snapshot->counts,
                                &snapshot->error);
    ngx_http_iothub_identity_stat(hub->shm->identity, &snapshot->identities);

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {
        gate = &snapshot->gates[i];
        gate->closed = ngx_http_iothub_throttle_gate(hub, i, &gate->left,
                                                     &gate->reason)
                       != NGX_OK;
    }

    snapshot->backlog = ngx_http_iothub_throttle_backlog(hub);
    snapshot->key = ngx_http_iothub_zone_key(hub);
    snapshot->unusable = ngx_http_iothub_report_unusable(hub);
}


ngx_http_iothub_result_e
ngx_http_iothub_report_unusable(ngx_http_iothub_hub_t *hub)
{
    time_t                      failed;
    ngx_uint_t                  i;
    ngx_msec_t                  left;
    ngx_http_iothub_result_e    reason;
    ngx_http_iothub_metrics_t  *metrics;

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {

        /* without the registry, devices that exist deliver */

        if (i != NGX_HTTP_IOTHUB_GATE_REGISTRY
            && ngx_http_iothub_throttle_gate(hub, i, &left, &reason)
               != NGX_OK)
        {
            return reason;
        }
    }

    metrics = hub->shm->metrics;
    failed = __atomic_load_n(&metrics->failed_at, __ATOMIC_RELAXED);

    if (__atomic_load_n(&metrics->failing, __ATOMIC_RELAXED)
        >= NGX_HTTP_IOTHUB_REPORT_FAILING
        && ngx_http_iothub_report_age(failed) < NGX_HTTP_IOTHUB_REPORT_FAILED)
    {
        return __atomic_load_n(&metrics->failed_by, __ATOMIC_RELAXED);
    }

    return NGX_HTTP_IOTHUB_NO_RESULT;
}


void
ngx_http_iothub_report_init(ngx_http_iothub_report_t *rep, ngx_pool_t *pool)
{
    ngx_memzero(rep, sizeof(ngx_http_iothub_report_t));

    rep->pool = pool;
    rep->last = &rep->out;
}


void ngx_cdecl
ngx_http_iothub_report_text(ngx_http_iothub_report_t *rep, const char *fmt,
    ...)
{
    u_char       *p;
    va_list       args;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    b = rep->buf;

    if (b == NULL || b->end - b->last < NGX_HTTP_IOTHUB_REPORT_LINE) {

        b = ngx_create_temp_buf(rep->pool, NGX_HTTP_IOTHUB_REPORT_BUFFER);
        cl = ngx_alloc_chain_link(rep->pool);

        if (b == NULL || cl == NULL) {
            rep->failed = 1;
            return;
        }

        cl->buf = b;
        cl->next = NULL;
        *rep->last = cl;
        rep->last = &cl->next;
        rep->buf = b;
    }

    va_start(args, fmt);
    p = ngx_vslprintf(b->last, b->last + NGX_HTTP_IOTHUB_REPORT_LINE, fmt,
                      args);
    va_end(args);

    rep->size += p - b->last;
    b->last = p;
}


ngx_int_t
ngx_http_iothub_report_escape(ngx_http_iothub_report_t *rep,
    ngx_str_t *string, ngx_str_t *text)
{
    string->len = ngx_http_iothub_json_escape(NULL, text);

    string->data = ngx_pnalloc(rep->pool, string->len + 1);

    if (string->data == NULL) {
        rep->failed = 1;
        return NGX_ERROR;
    }

    (void) ngx_http_iothub_json_escape(string->data, text);

    return NGX_OK;
}


ngx_str_t
ngx_http_iothub_report_field(u_char *field, size_t size)
{
    ngx_str_t  text;

    text.data = field;

    for (text.len = 0; text.len < size; text.len++) {
        if (field[text.len] == '\0') {
            break;
        }
    }

    return text;
}


time_t
ngx_http_iothub_report_age(time_t when)
{
    return (when < ngx_time()) ? ngx_time() - when : 0;
}
