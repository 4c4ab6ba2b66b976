
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * answer: what the sender gets.
 */

#ifndef _NGX_HTTP_IOTHUB_ANSWER_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_ANSWER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_iothub_module.h"
#include "ngx_http_iothub_outcome.h"


/*
 * Answers a webhook with a result: iothub_accepted, or a problem document
 * (RFC 9457) whose detail is a constant text of ours, never a byte of the
 * webhook or of the hub's answer.  retry_after is in seconds, 0 for the
 * default.  It is sent as a response, so that error_page cannot turn a
 * failure into a success.
 *
 * Returns what the request is to be finalized with.
 */

ngx_int_t ngx_http_iothub_answer(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf, ngx_http_iothub_result_e result,
    const char *detail, ngx_uint_t retry_after);


/*
 * The answer to the OPTIONS by which a sender of CloudEvents asks for
 * permission to send; origin is who asks, or NULL.  Returns what finalizes the
 * request.
 * https://github.com/cloudevents/spec, http-webhook.md
 */

ngx_int_t ngx_http_iothub_answer_handshake(ngx_http_request_t *r,
    ngx_str_t *origin);

/*
 * The answer to the webhook by which an Event Grid subscription is
 * confirmed: its code, in JSON, quotes included.  Returns what finalizes the
 * request.
 * https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema
 */

ngx_int_t ngx_http_iothub_answer_validation(ngx_http_request_t *r,
    ngx_str_t *code);


#endif /* _NGX_HTTP_IOTHUB_ANSWER_H_INCLUDED_ */
