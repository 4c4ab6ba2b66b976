
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * compose: a webhook, or an element of it -> an event and its message, ready
 * to be delivered.
 */

#ifndef _NGX_HTTP_IOTHUB_COMPOSE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_COMPOSE_H_INCLUDED_


#include "ngx_http_iothub_handler.h"


/*
 * Fills ctx->event, and hub, device and message of ctx->delivery.  NGX_OK;
 * NGX_DONE: there is nothing to deliver, the result is set; NGX_ERROR: no
 * memory.
 */

ngx_int_t ngx_http_iothub_compose(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);


#endif /* _NGX_HTTP_IOTHUB_COMPOSE_H_INCLUDED_ */
