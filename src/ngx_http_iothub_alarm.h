
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * alarm: what somebody has to put right, said to the log once a minute for
 * each hub and kind, however many webhooks meet it: refused keys, a right
 * that the policy lacks, a wrong clock.
 */

#ifndef _NGX_HTTP_IOTHUB_ALARM_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_ALARM_H_INCLUDED_


#include "ngx_http_iothub_zone.h"


/* Says it, unless some worker has within a minute. */

void ngx_http_iothub_alarm(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_alarm_e kind, ngx_log_t *log);

/*
 * The same for refused messages, where it is not known anew whether the keys
 * or the right to send are at fault: what was found last.
 */

void ngx_http_iothub_alarm_messages(ngx_http_iothub_hub_t *hub,
    ngx_log_t *log);

/*
 * Compares the Date of an answer that refuses a token with now (seconds),
 * and says so if they are more than five minutes apart: so much the hub
 * tolerates.  A date that is none is passed over.
 * https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes
 */

void ngx_http_iothub_alarm_clock(ngx_http_iothub_hub_t *hub, ngx_str_t *date,
    time_t now, ngx_log_t *log);


#endif /* _NGX_HTTP_IOTHUB_ALARM_H_INCLUDED_ */
