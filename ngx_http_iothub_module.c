
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_module.h"
#include "ngx_http_iothub_count.h"
#include "ngx_http_iothub_event.h"
#include "ngx_http_iothub_exchange.h"
#include "ngx_http_iothub_field.h"
#include "ngx_http_iothub_handler.h"
#include "ngx_http_iothub_key_file.h"
#include "ngx_http_iothub_pass.h"
#include "ngx_http_iothub_resolve.h"
#include "ngx_http_iothub_sender.h"
#include "ngx_http_iothub_status.h"
#include "ngx_http_iothub_variables.h"
#include "ngx_http_iothub_zone.h"


/* of each worker, bytes that may lie idle */

#define NGX_HTTP_IOTHUB_KEPT_MEMORY  (1024 * 1024)


static void *ngx_http_iothub_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_iothub_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_iothub_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_iothub_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_iothub_init_process(ngx_cycle_t *cycle);
static void ngx_http_iothub_keep_memory(void);
static void ngx_http_iothub_exit_master(ngx_cycle_t *cycle);

static char *ngx_http_iothub_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_value(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_check_id(ngx_conf_t *cf, void *post, void *data);
static char *ngx_http_iothub_check_own(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_iothub_check_header(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_http_iothub_check_switch(ngx_conf_t *cf, void *post,
    void *data);
static ngx_int_t ngx_http_iothub_compile(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t *cv);
static ngx_uint_t ngx_http_iothub_has_variable(ngx_str_t *text);
static char *ngx_http_iothub_source(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_device_pattern(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
#if (NGX_PCRE)
static ngx_regex_t *ngx_http_iothub_whole_regex(ngx_conf_t *cf,
    ngx_str_t *pattern);
static ngx_regex_t *ngx_http_iothub_regex(ngx_conf_t *cf,
    ngx_str_t *pattern);
#endif
static char *ngx_http_iothub_each_locator(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_match(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_filter(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_message(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_data_as(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_property(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_property_name(ngx_conf_t *cf,
    ngx_http_iothub_loc_conf_t *ilcf, ngx_str_t *name);
static char *ngx_http_iothub_secret(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_secret_parameters(ngx_conf_t *cf,
    ngx_str_t *name, ngx_str_t *file);
static ngx_int_t ngx_http_iothub_secret_file(ngx_conf_t *cf,
    ngx_http_iothub_secret_t *secret, ngx_str_t *file);
static char *ngx_http_iothub_signature(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_iothub_signature_parameters(ngx_conf_t *cf,
    ngx_http_iothub_signature_t *signature, ngx_str_t *file);
static ngx_int_t ngx_http_iothub_signature_file(ngx_conf_t *cf,
    ngx_http_iothub_signature_t *signature, ngx_str_t *file);
static char *ngx_http_iothub_code(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_iothub_deadline(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


#define NGX_HTTP_IOTHUB_LEVELS                                                \
    NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF

#define ngx_http_iothub_field_offset(field)                                   \
    (offsetof(ngx_http_iothub_loc_conf_t, fields)                             \
     + (field) * sizeof(ngx_http_complex_value_t *))


/* of values without variables: what can be judged of them at once */

static ngx_conf_post_t  ngx_http_iothub_id_post =
    { ngx_http_iothub_check_id };

static ngx_conf_post_t  ngx_http_iothub_own_post =
    { ngx_http_iothub_check_own };

static ngx_conf_post_t  ngx_http_iothub_header_post =
    { ngx_http_iothub_check_header };

static ngx_conf_post_t  ngx_http_iothub_switch_post =
    { ngx_http_iothub_check_switch };


static ngx_command_t  ngx_http_iothub_commands[] = {

    { ngx_string("iothub"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_iothub_hub_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_field"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_iothub_field,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_pass"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF|NGX_CONF_TAKE1,
      ngx_http_iothub_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_source"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_source,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_device_id"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      ngx_http_iothub_field_offset(NGX_HTTP_IOTHUB_DEVICE_ID),
      &ngx_http_iothub_id_post },

    { ngx_string("iothub_event"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      ngx_http_iothub_field_offset(NGX_HTTP_IOTHUB_EVENT),
      NULL },

    { ngx_string("iothub_data"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      ngx_http_iothub_field_offset(NGX_HTTP_IOTHUB_DATA),
      NULL },

    { ngx_string("iothub_published_at"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      ngx_http_iothub_field_offset(NGX_HTTP_IOTHUB_PUBLISHED_AT),
      &ngx_http_iothub_own_post },

    { ngx_string("iothub_message_id"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      ngx_http_iothub_field_offset(NGX_HTTP_IOTHUB_MESSAGE_ID),
      &ngx_http_iothub_own_post },

    { ngx_string("iothub_device_pattern"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_device_pattern,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_create"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_iothub_loc_conf_t, create),
      &ngx_http_iothub_switch_post },

    { ngx_string("iothub_each"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_each_locator,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_match"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_1MORE,
      ngx_http_iothub_match,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_filter"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_1MORE,
      ngx_http_iothub_filter,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_message"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE12,
      ngx_http_iothub_message,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_data_as"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_data_as,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_content_type"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_iothub_loc_conf_t, content_type),
      &ngx_http_iothub_header_post },

    { ngx_string("iothub_content_encoding"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_iothub_loc_conf_t, content_encoding),
      &ngx_http_iothub_header_post },

    { ngx_string("iothub_property"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE2,
      ngx_http_iothub_property,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_secret"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE12,
      ngx_http_iothub_secret,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_signature"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_2MORE,
      ngx_http_iothub_signature,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_deadline"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_deadline,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("iothub_accepted"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_code,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_iothub_loc_conf_t, accepted),
      NULL },

    { ngx_string("iothub_rejected"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE1,
      ngx_http_iothub_code,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_iothub_loc_conf_t, rejected),
      NULL },

    { ngx_string("iothub_target"),
      NGX_HTTP_IOTHUB_LEVELS|NGX_CONF_TAKE12,
      ngx_http_iothub_target,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_iothub_loc_conf_t, target),
      NULL },

    { ngx_string("iothub_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_iothub_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_iothub_module_ctx = {
    ngx_http_iothub_variables_add,         /* preconfiguration */
    ngx_http_iothub_init,                  /* postconfiguration */

    ngx_http_iothub_create_main_conf,      /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_iothub_create_loc_conf,       /* create location configuration */
    ngx_http_iothub_merge_loc_conf         /* merge location configuration */
};


ngx_module_t  ngx_http_iothub_module = {
    NGX_MODULE_V1,
    &ngx_http_iothub_module_ctx,           /* module context */
    ngx_http_iothub_commands,              /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_iothub_init_process,          /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    ngx_http_iothub_exit_master,           /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_iothub_create_main_conf(ngx_conf_t *cf)
{
    ngx_str_t                     name;
    ngx_http_iothub_main_conf_t  *imcf;

    imcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_iothub_main_conf_t));
    if (imcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&imcf->hubs, cf->pool, 4,
                       sizeof(ngx_http_iothub_hub_t *))
        != NGX_OK
        || ngx_array_init(&imcf->passes, cf->pool, 4,
                          sizeof(ngx_http_iothub_pass_t))
           != NGX_OK
        || ngx_array_init(&imcf->variables, cf->pool, 32, sizeof(ngx_int_t))
           != NGX_OK)
    {
        return NULL;
    }

    /* where none is named */

    ngx_str_set(&name, "particle");

    imcf->source = ngx_http_iothub_source_get(cf->pool, &name);
    if (imcf->source == NULL) {
        return NULL;
    }

    return imcf;
}


static void *
ngx_http_iothub_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_iothub_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_iothub_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->pass = NULL;
     *     conf->hub = NULL;
     *     conf->source = NULL;
     *     conf->fields = { NULL };
     *     conf->each = NULL;
     *     conf->create = NULL;
     *     conf->message = NULL;
     *     conf->content_type = NULL;
     *     conf->content_encoding = NULL;
     *     conf->device_pattern = NULL;
     *     conf->device_pattern_text = { 0, NULL };
     *     conf->secret = NULL;
     *     conf->signature = NULL;
     */

    conf->match = NGX_CONF_UNSET_PTR;
    conf->filters = NGX_CONF_UNSET_PTR;
    conf->properties = NGX_CONF_UNSET_PTR;
    conf->data_as = NGX_CONF_UNSET_UINT;
    conf->secret_set = NGX_CONF_UNSET;
    conf->deadline = NGX_CONF_UNSET_MSEC;
    conf->accepted = NGX_CONF_UNSET_UINT;
    conf->rejected = NGX_CONF_UNSET_UINT;
    conf->target = NGX_CONF_UNSET_PTR;
    conf->status = NGX_CONF_UNSET_UINT;

    return conf;
}


static char *
ngx_http_iothub_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_iothub_loc_conf_t *prev = parent;
    ngx_http_iothub_loc_conf_t *conf = child;

    ngx_uint_t                    i;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_iothub_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_iothub_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* as with proxy_pass, an "if" without one goes on with the location's */

    if (clcf->noname && conf->pass == NULL) {
        conf->pass = prev->pass;
    }

    if (clcf->lmt_excpt && clcf->handler == NULL && conf->pass) {
        clcf->handler = ngx_http_iothub_handler;
    }

    if (conf->source == NULL) {
        conf->source = prev->source ? prev->source : imcf->source;
    }

    for (i = 0; i < NGX_HTTP_IOTHUB_OVERRIDES; i++) {
        if (conf->fields[i] == NULL) {
            conf->fields[i] = prev->fields[i];
        }
    }

#if (NGX_PCRE)

    if (conf->device_pattern == NULL) {
        conf->device_pattern = prev->device_pattern;
        conf->device_pattern_text = prev->device_pattern_text;
    }

#endif

    if (conf->each == NULL) {
        conf->each = prev->each;
    }

    if (conf->create == NULL) {
        conf->create = prev->create;
    }

    if (conf->message == NULL) {
        conf->message = prev->message;
    }

    if (conf->content_type == NULL) {
        conf->content_type = prev->content_type;
    }

    if (conf->content_encoding == NULL) {
        conf->content_encoding = prev->content_encoding;
    }

    if (conf->secret_set == NGX_CONF_UNSET) {
        conf->secret = prev->secret;
    }

    ngx_conf_merge_value(conf->secret_set, prev->secret_set, 0);

    if (conf->signature == NULL) {
        conf->signature = prev->signature;
    }

    ngx_conf_merge_ptr_value(conf->match, prev->match, NULL);
    ngx_conf_merge_ptr_value(conf->filters, prev->filters, NULL);
    ngx_conf_merge_ptr_value(conf->properties, prev->properties, NULL);
    ngx_conf_merge_uint_value(conf->data_as, prev->data_as, 0);
    ngx_conf_merge_uint_value(conf->accepted, prev->accepted,
                              NGX_HTTP_NO_CONTENT);
    ngx_conf_merge_uint_value(conf->rejected, prev->rejected, 0);
    ngx_conf_merge_ptr_value(conf->target, prev->target, NULL);

    /* 0: that of the source, which a lower level may change */

    ngx_conf_merge_msec_value(conf->deadline, prev->deadline, 0);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_iothub_init(ngx_conf_t *cf)
{
    ngx_http_iothub_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_iothub_module);

    if (ngx_http_iothub_variables_init(cf) != NGX_OK
        || ngx_http_iothub_pass_init(cf, imcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (imcf->passes.nelts
        && ngx_http_iothub_zone_add_metrics(cf, &imcf->metrics) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_iothub_count_init(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_iothub_exchange_init();

    return ngx_http_iothub_hub_init(cf, &imcf->hubs);
}


static ngx_int_t
ngx_http_iothub_init_process(ngx_cycle_t *cycle)
{
    ngx_http_iothub_main_conf_t  *imcf;

    imcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_iothub_module);

    if (imcf == NULL) {
        return NGX_OK;
    }

    if (imcf->passes.nelts) {
        ngx_http_iothub_keep_memory();
    }

    ngx_http_iothub_zone_init_worker(cycle, &imcf->hubs);

    return ngx_http_iothub_resolve_init_worker(cycle, &imcf->hubs);
}


/*
 * glibc gives memory back to the system as soon as 128 KB lie idle, and takes
 * each 128 KB from it anew: a few webhooks that end together, or one that is
 * large, and the next ones wait for page after page.
 */

static void
ngx_http_iothub_keep_memory(void)
{
#if (NGX_LINUX && defined __GLIBC__)

    (void) mallopt(M_TRIM_THRESHOLD, NGX_HTTP_IOTHUB_KEPT_MEMORY);
    (void) mallopt(M_MMAP_THRESHOLD, NGX_HTTP_IOTHUB_KEPT_MEMORY);

#endif
}


static void
ngx_http_iothub_exit_master(ngx_cycle_t *cycle)
{
    ngx_http_iothub_main_conf_t  *imcf;

    imcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_iothub_module);

    if (imcf) {
        ngx_http_iothub_zone_save(cycle, &imcf->hubs);
    }
}


static char *
ngx_http_iothub_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t                    *value;
    ngx_http_iothub_pass_t       *pass;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_iothub_main_conf_t  *imcf;

    if (ilcf->pass) {
        return "is duplicate";
    }

    if (ilcf->status != NGX_CONF_UNSET_UINT) {
        return "cannot be where \"iothub_status\" is: give it a location "
               "of its own";
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "follows another content handler, such as proxy_pass, in the "
               "same location: move that into a location of its own, and "
               "write \"iothub_target\" to have it get the webhook, too";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "needs the name of a hub";
    }

    ilcf->pass = ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (ilcf->pass == NULL
        || ngx_http_iothub_compile(cf, &value[1], ilcf->pass) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_iothub_module);

    pass = ngx_array_push(&imcf->passes);
    if (pass == NULL) {
        return NGX_CONF_ERROR;
    }

    pass->conf = ilcf;
    pass->server = ngx_http_conf_get_module_srv_conf(cf,
                                                     ngx_http_core_module);
    pass->file = cf->conf_file->file.name.data;
    pass->line = cf->conf_file->line;
    ngx_str_null(&pass->name);

    if (ilcf->pass->lengths == NULL) {

        if (!ngx_http_iothub_hub_name_valid(&value[1])) {
            return "needs the name of a hub, as \"iothub NAME { ... }\" "
                   "declares it, not an address";
        }

        pass->name = value[1];
    }

    clcf->handler = ngx_http_iothub_handler;
    pass->location = clcf;

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_value(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                       *rv;
    ngx_conf_post_t            *post = cmd->post;
    ngx_http_complex_value_t  **slot;

    rv = ngx_http_set_complex_value_slot(cf, cmd, conf);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    slot = (ngx_http_complex_value_t **) ((u_char *) conf + cmd->offset);

    if ((*slot)->lengths) {
        return NGX_CONF_OK;
    }

    return post->post_handler(cf, post, &(*slot)->value);
}


static char *
ngx_http_iothub_check_id(ngx_conf_t *cf, void *post, void *data)
{
    ngx_str_t *value = data;

    const char  *reason;

    if (ngx_http_iothub_event_device_id_valid(value, &reason)) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid device id \"%V\": %s", value, reason);

    return NGX_CONF_ERROR;
}


/* what each event should have of its own */

static char *
ngx_http_iothub_check_own(ngx_conf_t *cf, void *post, void *data)
{
    ngx_str_t *value = data;

    ngx_str_t  *name = cf->args->elts;

    if (value->len) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V %V\" is the same for each event: write a "
                           "variable, such as \"$%V\"", name, value, value);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_check_header(ngx_conf_t *cf, void *post, void *data)
{
    if (!ngx_http_iothub_event_property_value_valid(data)) {
        return "has a character that the hub does not take: write printable "
               "ASCII";
    }

    return NGX_CONF_OK;
}


/* a word that is not empty and not "0" is a yes */

static char *
ngx_http_iothub_check_switch(ngx_conf_t *cf, void *post, void *data)
{
    ngx_str_t *value = data;

    ngx_str_t   *name = cf->args->elts;
    ngx_uint_t   i;

    static const char *const  no[] = { "off", "no", "false", "none", NULL };

    for (i = 0; no[i]; i++) {
        if (value->len == ngx_strlen(no[i])
            && ngx_strncasecmp(value->data, (u_char *) no[i], value->len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"%V\" in %V is a yes, as is every word but "
                               "\"0\": write \"0\"", value, name);
            break;
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_iothub_compile(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t *cv)
{
    ngx_http_compile_complex_value_t  ccv;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = cv;

    return ngx_http_compile_complex_value(&ccv);
}


/* does nginx see a variable where text is taken as it is written? */

static ngx_uint_t
ngx_http_iothub_has_variable(ngx_str_t *text)
{
    u_char      ch;
    ngx_uint_t  i;

    for (i = 0; i + 1 < text->len; i++) {

        if (text->data[i] != '$') {
            continue;
        }

        ch = text->data[i + 1] | 0x20;

        if ((ch >= 'a' && ch <= 'z') || text->data[i + 1] == '{'
            || text->data[i + 1] == '_')
        {
            return 1;
        }
    }

    return 0;
}


static char *
ngx_http_iothub_source(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t  *value;

    if (ilcf->source) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ilcf->source = ngx_http_iothub_source_get(cf->pool, &value[1]);

    if (ilcf->source == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown source \"%V\", write %s", &value[1],
                           ngx_http_iothub_source_names);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_each_locator(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_int_t    rc;
    ngx_str_t   *value;
    const char  *reason;

    if (ilcf->each) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len && value[1].data[0] == '$') {
        return "takes no variable: write json:/pointer";
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return "cannot be switched off: write it only into the locations "
               "that need it; a member of this name is \"json:/off\"";
    }

    ilcf->each = ngx_palloc(cf->pool, sizeof(ngx_http_iothub_locator_t));
    if (ilcf->each == NULL) {
        return NGX_CONF_ERROR;
    }

    rc = ngx_http_iothub_locator_read(cf->pool, &value[1], ilcf->each,
                                      &reason);

    if (rc == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    if (rc == NGX_DECLINED
        || (ilcf->each->kind != NGX_HTTP_IOTHUB_LOCATOR_JSON
            && ilcf->each->kind != NGX_HTTP_IOTHUB_LOCATOR_NAME))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid locator \"%V\": %s", &value[1],
                           rc == NGX_DECLINED
                           ? reason : "an array is in JSON only, write "
                                      "json:/pointer, or \"json:\" for all "
                                      "of the body");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_device_pattern(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
#if (NGX_PCRE)
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t  *value;

    if (ilcf->device_pattern) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "needs a regular expression";
    }

    /* of these no id can be, whatever follows */

    switch (value[1].data[0]) {

    case '$':
        return "takes no variables: write a regular expression, or "
               "\"iothub_filter\" and a \"map\"";

    case '~':
        return "needs the regular expression alone, without \"~\"";

    case '/':
        return "needs the regular expression alone, without \"/\" around it";
    }

    ilcf->device_pattern_text = value[1];
    ilcf->device_pattern = ngx_http_iothub_whole_regex(cf, &value[1]);

    return ilcf->device_pattern ? NGX_CONF_OK : NGX_CONF_ERROR;

#else

    return "needs nginx with the PCRE library";

#endif
}


#if (NGX_PCRE)

/*
 * The whole id must match.  Compiled alone first: "a)|(b" is no regex, and
 * would be one in the brackets.
 */

static ngx_regex_t *
ngx_http_iothub_whole_regex(ngx_conf_t *cf, ngx_str_t *pattern)
{
    u_char     *p;
    ngx_str_t   whole;

    if (ngx_http_iothub_regex(cf, pattern) == NULL) {
        return NULL;
    }

    p = ngx_pnalloc(cf->pool, sizeof("\\A(?:)\\z") + pattern->len);
    if (p == NULL) {
        return NULL;
    }

    whole.data = p;
    whole.len = ngx_sprintf(p, "\\A(?:%V)\\z%Z", pattern) - p - 1;

    return ngx_http_iothub_regex(cf, &whole);
}


static ngx_regex_t *
ngx_http_iothub_regex(ngx_conf_t *cf, ngx_str_t *pattern)
{
    u_char               errstr[NGX_MAX_CONF_ERRSTR];
    ngx_regex_compile_t  rc;

    ngx_memzero(&rc, sizeof(ngx_regex_compile_t));

    /* nginx keeps what it compiles: it comes from the lasting pool */

    rc.pattern = *pattern;
    rc.pool = cf->pool;
    rc.err.len = NGX_MAX_CONF_ERRSTR;
    rc.err.data = errstr;

    if (ngx_regex_compile(&rc) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%V", &rc.err);
        return NULL;
    }

    return rc.regex;
}

#endif


static char *
ngx_http_iothub_match(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t   *value, *prefix;
    ngx_uint_t   i;

    if (ilcf->match != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    ilcf->match = ngx_array_create(cf->pool, cf->args->nelts - 1,
                                   sizeof(ngx_str_t));
    if (ilcf->match == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (value[i].len == 0) {
            return "needs prefixes that are not empty";
        }

        if (ngx_http_iothub_has_variable(&value[i])) {
            return "takes no variables: for these, write \"iothub_filter\" "
                   "and a \"map\"";
        }

        if (value[i].data[0] == '~' || value[i].data[0] == '^'
            || value[i].data[value[i].len - 1] == '*')
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"%V\" in iothub_match is a prefix as it is "
                               "written, not a pattern: write the beginning "
                               "of the names alone, or \"iothub_filter\" and "
                               "a \"map\"", &value[i]);
        }

        prefix = ngx_array_push(ilcf->match);
        if (prefix == NULL) {
            return NGX_CONF_ERROR;
        }

        *prefix = value[i];
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_filter(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t                 *value;
    ngx_uint_t                 i;
    ngx_http_complex_value_t  *cv;

    if (ilcf->filters != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    ilcf->filters = ngx_array_create(cf->pool, cf->args->nelts - 1,
                                     sizeof(ngx_http_complex_value_t));
    if (ilcf->filters == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        cv = ngx_array_push(ilcf->filters);

        if (cv == NULL
            || ngx_http_iothub_compile(cf, &value[i], cv) != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        if (cv->lengths) {
            continue;
        }

        if (cv->value.len > 1) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"%V\" in iothub_filter lets every event "
                               "pass: write a variable, such as \"$%V\"",
                               &cv->value, &cv->value);
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_message(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t   *value;
    ngx_uint_t   escape;

    if (ilcf->message) {
        return "is duplicate";
    }

    value = cf->args->elts;
    escape = 1;

    if (cf->args->nelts == 2
        && ngx_strncmp(value[1].data, "escape=", 7) == 0)
    {
        return "needs a value after \"escape=\"";
    }

    if (cf->args->nelts == 3) {

        if (ngx_strcmp(value[1].data, "escape=none") == 0) {
            escape = 0;

        } else if (ngx_strcmp(value[1].data, "escape=json") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", write "
                               "\"escape=json\" or \"escape=none\"",
                               &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    ilcf->message = ngx_http_iothub_template_compile(cf,
                                         &value[cf->args->nelts - 1], escape);

    if (ilcf->message == NULL) {
        return NGX_CONF_ERROR;
    }

    ilcf->message->file = cf->conf_file->file.name.data;
    ilcf->message->line = cf->conf_file->line;

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_data_as(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t  *value;

    if (ilcf->data_as != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "string") == 0) {
        ilcf->data_as = 0;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "json") == 0) {
        ilcf->data_as = 1;
        return NGX_CONF_OK;
    }

    return "must be \"string\" or \"json\"";
}


static char *
ngx_http_iothub_property(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    char                        *rv;
    u_char                      *p;
    ngx_str_t                   *value;
    ngx_http_iothub_property_t  *property;

    value = cf->args->elts;

    if (ilcf->properties == NGX_CONF_UNSET_PTR) {
        ilcf->properties = ngx_array_create(cf->pool, 4,
                                        sizeof(ngx_http_iothub_property_t));
        if (ilcf->properties == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    rv = ngx_http_iothub_property_name(cf, ilcf, &value[1]);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    property = ngx_array_push(ilcf->properties);
    if (property == NULL) {
        return NGX_CONF_ERROR;
    }

    property->key.len = sizeof("iothub-app-") - 1 + value[1].len;
    property->lowcase.len = property->key.len;

    p = ngx_pnalloc(cf->pool, 2 * property->key.len);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    property->key.data = p;
    property->lowcase.data = p + property->key.len;

    ngx_sprintf(property->key.data, "iothub-app-%V", &value[1]);
    ngx_strlow(property->lowcase.data, property->key.data,
               property->key.len);

    if (ngx_http_iothub_compile(cf, &value[2], &property->value) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (property->value.lengths) {
        return NGX_CONF_OK;
    }

    return ngx_http_iothub_check_header(cf, NULL, &property->value.value);
}


static char *
ngx_http_iothub_property_name(ngx_conf_t *cf,
    ngx_http_iothub_loc_conf_t *ilcf, ngx_str_t *name)
{
    ngx_uint_t                   i;
    const char                  *reason;
    ngx_http_iothub_property_t  *property;

    static ngx_str_t  prefix = ngx_string("iothub-app-");

    if (ngx_http_iothub_has_variable(name)) {
        return "takes no variable as its name: write \"iothub_property NAME "
               "$value;\"";
    }

    if (!ngx_http_iothub_event_property_name_valid(name, &reason)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid property name \"%V\": %s", name, reason);
        return NGX_CONF_ERROR;
    }

    if (name->len > prefix.len
        && ngx_strncasecmp(name->data, prefix.data, prefix.len) == 0)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" in iothub_property becomes "
                           "\"iothub-app-%V\": write \"%s\"", name, name,
                           name->data + prefix.len);
    }

    /* names are header names to the hub: their case tells nothing apart */

    property = ilcf->properties->elts;

    for (i = 0; i < ilcf->properties->nelts; i++) {
        if (property[i].key.len == name->len + prefix.len
            && ngx_strncasecmp(property[i].key.data + prefix.len, name->data,
                               name->len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate property \"%V\"", name);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_secret(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    char                      *rv;
    ngx_str_t                 *value, name, file;
    ngx_http_iothub_secret_t  *secret;

    if (ilcf->secret_set != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    ilcf->secret_set = 1;

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    rv = ngx_http_iothub_secret_parameters(cf, &name, &file);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    secret = ngx_palloc(cf->pool, sizeof(ngx_http_iothub_secret_t));
    if (secret == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_strlow(name.data, name.data, name.len);

    secret->header = name;

    if (ngx_http_iothub_secret_file(cf, secret, &file) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    ilcf->secret = secret;

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_secret_parameters(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *file)
{
    ngx_str_t   *value;
    ngx_uint_t   i;

    ngx_str_null(name);
    ngx_str_null(file);

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "header=", 7) == 0 && !name->data) {
            name->data = value[i].data + 7;
            name->len = value[i].len - 7;

        } else if (ngx_strncmp(value[i].data, "file=", 5) == 0
                   && !file->data)
        {
            file->data = value[i].data + 5;
            file->len = value[i].len - 5;

        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", write "
                               "\"header=NAME file=FILE\", or \"off\"",
                               &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    if (name->len == 0 || file->len == 0) {
        return "needs \"header=NAME file=FILE\", or \"off\"";
    }

    if (!ngx_http_iothub_header_name(name)) {
        return "has an invalid header name, write one such as "
               "\"header=X-Webhook-Secret\"";
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_iothub_secret_file(ngx_conf_t *cf, ngx_http_iothub_secret_t *secret,
    ngx_str_t *file)
{
    ngx_int_t    rc;
    ngx_str_t    text;
    ngx_uint_t   line;
    const char  *reason;

    if (ngx_array_init(&secret->secrets, cf->pool, 2, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_iothub_key_file_read(cf, file, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_sender_parse_secrets(cf->pool, &text,
                                              &secret->secrets, &reason,
                                              &line);

    ngx_explicit_memzero(text.data, text.len);

    if (rc == NGX_DECLINED) {
        ngx_http_iothub_key_file_bad(cf, file, reason, line);
    }

    return rc == NGX_OK ? NGX_OK : NGX_ERROR;
}


static char *
ngx_http_iothub_signature(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_int_t                     rc;
    ngx_str_t                    *value, file;
    ngx_http_iothub_signature_t  *signature;

    if (ilcf->signature) {
        return "is duplicate";
    }

    signature = ngx_palloc(cf->pool, sizeof(ngx_http_iothub_signature_t));
    if (signature == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    rc = ngx_http_iothub_signature_init(cf->pool, signature, &value[1]);

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown scheme \"%V\", write %s", &value[1],
                           ngx_http_iothub_signature_names);
    }

    if (rc != NGX_OK
        || ngx_http_iothub_signature_parameters(cf, signature, &file)
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (file.len == 0) {
        return "needs \"file=FILE\"";
    }

    if (signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_VALUE].len == 0) {
        return "needs \"header=NAME\" with this scheme";
    }

    if (ngx_http_iothub_signature_file(cf, signature, &file) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    ilcf->signature = signature;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_iothub_signature_parameters(ngx_conf_t *cf,
    ngx_http_iothub_signature_t *signature, ngx_str_t *file)
{
    ngx_int_t    rc;
    ngx_str_t   *value;
    ngx_uint_t   i;
    const char  *reason;

    ngx_str_null(file);

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "file=", 5) == 0 && !file->data) {
            file->data = value[i].data + 5;
            file->len = value[i].len - 5;
            continue;
        }

        rc = ngx_http_iothub_signature_set(cf->pool, signature, &value[i],
                                           &reason);

        if (rc == NGX_DECLINED) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\": %s", &value[i],
                               reason ? reason
                                      : "write \"file=FILE\", and what the "
                                        "scheme takes of \"header=NAME\", "
                                        "\"prefix=TEXT\", \"encoding=hex\" "
                                        "and \"tolerance=5m\", each once");
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_signature_file(ngx_conf_t *cf,
    ngx_http_iothub_signature_t *signature, ngx_str_t *file)
{
    ngx_int_t    rc;
    ngx_str_t    text;
    ngx_uint_t   line;
    const char  *reason;

    if (ngx_http_iothub_key_file_read(cf, file, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_signature_parse_keys(cf->pool, signature, &text,
                                              &reason, &line);

    ngx_explicit_memzero(text.data, text.len);

    if (rc == NGX_DECLINED) {
        ngx_http_iothub_key_file_bad(cf, file, reason, line);
    }

    return rc == NGX_OK ? NGX_OK : NGX_ERROR;
}


static char *
ngx_http_iothub_code(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_int_t    code;
    ngx_str_t   *value;
    ngx_uint_t  *slot;

    slot = (ngx_uint_t *) ((u_char *) conf + cmd->offset);

    if (*slot != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    code = ngx_atoi(value[1].data, value[1].len);

    if (cmd->offset == offsetof(ngx_http_iothub_loc_conf_t, accepted)) {

        if (code != 200 && code != 202 && code != 204) {
            return "must be 200, 202 or 204";
        }

    } else if (!((code >= 200 && code <= 299)
                 || (code >= 400 && code <= 499)))
    {
        return "must be a code from 200 to 299 or from 400 to 499";

    } else if (code == 408 || code == 425 || code == 429) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"iothub_rejected %i\" asks the sender to repeat "
                           "what will be rejected again: write 422 or 400",
                           code);
    }

    *slot = code;

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_deadline(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_int_t   ms;
    ngx_str_t  *value;

    if (ilcf->deadline != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;
    ms = ngx_parse_time(&value[1], 0);

    if (ms == NGX_ERROR) {
        return "has an invalid time, write for example \"15s\"";
    }

    if (ms == 0) {
        return "must be longer than nothing, write for example \"15s\"";
    }

    ilcf->deadline = ms;

    return NGX_CONF_OK;
}
