
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_count.h"
#include "ngx_http_iothub_zone.h"


static void ngx_http_iothub_count_events(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_metrics_counts_t *counts, ngx_http_iothub_result_e result);
static ngx_http_iothub_metrics_counts_t *ngx_http_iothub_count_slot(
    ngx_http_iothub_ctx_t *ctx, ngx_http_iothub_hub_t *hub);
static ngx_int_t ngx_http_iothub_count_handler(ngx_http_request_t *r);


void
ngx_http_iothub_count(ngx_http_iothub_ctx_t *ctx)
{
    ngx_http_iothub_result_e           result;
    ngx_http_iothub_metrics_counts_t  *counts;

    result = ngx_http_iothub_outcome(ctx);

    if (ctx->counted || result == NGX_HTTP_IOTHUB_NO_RESULT) {
        return;
    }

    ctx->counted = 1;

    counts = ngx_http_iothub_count_slot(ctx, ctx->delivery.hub);

    ngx_http_iothub_metrics_add(
                     &counts->webhooks[ctx->conf->source->n][result], 1);

    ngx_http_iothub_count_events(ctx, counts, result);
}


static void
ngx_http_iothub_count_events(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_metrics_counts_t *counts, ngx_http_iothub_result_e result)
{
    ngx_uint_t                      i;
    ngx_http_iothub_batch_event_t  *event;

    if (ctx->batch == NULL || ctx->batch->handler == NULL) {
        ngx_http_iothub_metrics_add(&counts->events[result], 1);
        return;
    }

    event = ctx->batch->events.elts;

    for (i = 0; i < ctx->batch->events.nelts; i++) {

        counts = ngx_http_iothub_count_slot(ctx, event[i].hub);

        result = event[i].result ? event[i].result
                                 : NGX_HTTP_IOTHUB_TIMEOUT;

        ngx_http_iothub_metrics_add(&counts->events[result], 1);
    }
}


/* hub is NULL where a variable names none */

static ngx_http_iothub_metrics_counts_t *
ngx_http_iothub_count_slot(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_hub_t *hub)
{
    ngx_http_complex_value_t     *pass;
    ngx_http_iothub_main_conf_t  *imcf;

    if (hub == NULL) {
        hub = ctx->conf->hub;
    }

    imcf = ngx_http_get_module_main_conf(ctx->request,
                                         ngx_http_iothub_module);

    /* an "if" has inherited the name alone */

    pass = ctx->conf->pass;

    if (hub == NULL && pass && pass->lengths == NULL) {
        hub = ngx_http_iothub_hub_find(&imcf->hubs, &pass->value);
    }

    if (hub) {
        return hub->counts;
    }

    return ngx_http_iothub_metrics_slot(imcf->metrics, 0);
}


static ngx_int_t
ngx_http_iothub_count_handler(ngx_http_request_t *r)
{
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_iothub_module);

    if (ctx && r == r->main) {
        ngx_http_iothub_count(ctx);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_count_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_iothub_count_handler;

    return NGX_OK;
}
