
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * count: a webhook and its events in the metrics of their hubs.
 */

#ifndef _NGX_HTTP_IOTHUB_COUNT_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_COUNT_H_INCLUDED_


#include "ngx_http_iothub_handler.h"


/* Counts a webhook whose result is known; a second time, nothing. */

void ngx_http_iothub_count(ngx_http_iothub_ctx_t *ctx);

/*
 * Puts a handler into the log phase, in postconfiguration: it counts webhooks
 * whose sender was gone before the result was known.
 */

ngx_int_t ngx_http_iothub_count_init(ngx_conf_t *cf);


#endif /* _NGX_HTTP_IOTHUB_COUNT_H_INCLUDED_ */
