#!/usr/bin/perl

# The documents: nginx takes each configuration in them, each recipe does what
# it is for, JSON is JSON, commands are commands that exist, links lead
# somewhere, and what the source has a name for is described.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP;
use Test::More;
use IoTHubTest;
use IoTHubTest::Recorder;

my $root = "$FindBin::Bin/..";
my @documents = ('README.md', map { s{^\Q$root\E/}{}r } glob "$root/doc/*.md");
my @recipes = qw(doc/cookbook.md doc/migration.md);

my $t = IoTHubTest->new;
my %hub = map {
    $_ => $t->hub(name => $_, policy => 'webhooks', tls => 0)
} qw(contoso fabrikam);
my $target = IoTHubTest::Recorder->start($t, 'target');
my $form = 'application/x-www-form-urlencoded';
my $type = 'application/json';


# ---- what is read of a document

sub slurp {
    my ($name) = @_;

    open my $fh, '<', "$root/$name" or die "$name: $!\n";
    local $/;
    return scalar <$fh>;
}


# the blocks of a document: its language, first line, heading and text

sub blocks {
    my ($name) = @_;
    my ($n, $heading, @blocks, $block) = (0, '');

    for my $line (split /^/m, slurp($name)) {
        $n++;

        if ($line =~ /^```(\w*)/) {
            $block = $block ? undef : { lang => $1, line => $n + 1,
                                        heading => $heading, text => '' };
            push @blocks, $block if $block;

        } elsif ($block) {
            $block->{text} .= $line;

        } elsif ($line =~ /^#+ (.*)/) {
            $heading = $1;
        }
    }

    return @blocks;
}


# ---- configurations

# where a directive stands that is outermost in a block; others are a
# location's

my %level = (
    http => 'main',
    (map { $_ => 'http' } qw(server upstream map iothub iothub_field
                             log_format limit_req_zone)),
    location => 'server',
    (map { $_ => 'iothub' } qw(resolver register)),
);

my %wrap = (
    main => sub { $_[0] },
    http => sub { $_[0] },
    server => sub { "server { listen 127.0.0.1:%%PORT_8081%%; $_[0] }" },
    iothub => sub { iothub('wrapped', 'address 127.0.0.1:%%HUB_contoso%%; '
                                      . "tls off; $_[0]") },
    location => sub { "server { listen 127.0.0.1:%%PORT_8081%%;"
                      . " location / { iothub_secret off;"
                      . " iothub_pass contoso; $_[0] } }" },
);


sub iothub {
    my ($name, $more) = @_;

    return "iothub $name { hostname $name.azure-devices.net; policy webhooks;"
        . " key_file %%TESTDIR%%/contoso.key; $more }";
}


sub outermost {
    my ($text) = @_;
    my ($depth, $start, @names) = (0, 1);

    $text =~ s/"(?:\\.|[^"])*"|'(?:\\.|[^'])*'|\$\{\w+\}/quoted/g;
    $text =~ s/#.*//g;

    while ($text =~ /([;{}])|([^\s;{}]+)/g) {

        if (defined $1) {
            $depth += { '{' => 1, '}' => -1, ';' => 0 }->{$1};
            $start = 1;
            next;
        }

        push @names, $2 if $start && !$depth;
        $start = 0;
    }

    return @names;
}


# A document's configuration as a test can run it: other files and ports, and
# the simulator in place of the hub.

sub here {
    my ($text) = @_;

    for ($text) {
        s{listen\s+443 ssl;}{listen 127.0.0.1:%%PORT_8443%% ssl;}g;
        s{\bserver \{(?=\s*location)}{$& listen 127.0.0.1:%%PORT_8081%%;}g;
        s{listen\s+127\.0\.0\.1:8080;}{listen 127.0.0.1:%%PORT_8082%%;}g;
        s{/etc/nginx/tls/[\w-]+\.}{%%TESTDIR%%/server.}g;
        s{/etc/nginx/iothub/}{%%TESTDIR%%/}g;
        s{/path/to/build/simulator/}{%%TESTDIR%%/}g;
        s{/var/log/nginx/}{%%TESTDIR%%/}g;
        s{http://127\.0\.0\.1:8080}{'http://127.0.0.1:' . $target->port}ge;
        s{address\s+127\.0\.0\.1:8443;}{}g;
        s{\b(iothub (\w+) \{)}{$1 address 127.0.0.1:%%HUB_$2%%; tls off;}g;
        s{contoso\.azure-devices\.net:443}{127.0.0.1:%%HUB_contoso%%}g;
    }

    return $text;
}


# hubs that a block names and another block describes

sub others {
    my ($text) = @_;

    return join ' ', map {
        iothub($_, 'address 127.0.0.1:%%HUB_contoso%%; tls off;')
    } grep {
        $text !~ /\b(?:iothub \Q$_\E|upstream \Q$_\E\.\S+) \{/
    } qw(contoso contoso-alarms fabrikam);
}


sub conf {
    my ($block) = @_;
    my %found = map { $_ => 1 }
        map { $level{$_} // 'location' } outermost($block->{text});
    my ($level) = grep { $found{$_} } qw(main http server iothub location);
    my $text = $wrap{$level}->(here($block->{text}));

    return $level eq 'main' ? $text : others($text) . "\n" . $text;
}


$t->write_file("$_.key", join "\n", $hub{$_}->keys) for keys %hub;
$t->write_file("$_.secret", "the $_ word\n")
    for qw(particle github chirpstack tts eventgrid);
$t->write_file('retired.map', "3f002b000000000000000000 0;\n");
system(join ' ', 'openssl req -x509 -newkey ec -pkeyopt',
       'ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout',
       $t->dir . '/server.key', '-out', $t->dir . '/server.pem 2> /dev/null')
    == 0 or die "openssl made no certificate\n";
$t->write_file('ca.pem', $t->read_file('server.pem'));


for my $name (@documents) {
    for my $block (grep { $_->{lang} eq 'nginx' } blocks($name)) {
        my ($exit, $output) = $t->nginx_t(conf($block));

        is($exit, 0, "$name, line $block->{line}: nginx takes it")
            or diag $output;

        next if !grep { $_ eq $name } @recipes;
        unlike($output, qr/\[warn\]/, "$name, line $block->{line}: silently");
    }
}


# ---- the recipes

sub payload {
    my ($file, $name) = @_;
    my ($request) = grep { $_->{name} =~ /^\Q$name\E/ } @{ decode_json(
        slurp("t/payloads/$file.json"))->{requests} };

    return $request->{body_raw} // encode_json($request->{body});
}


# SECRET is the name of the secret that the sender has, undef for none

sub sent {
    my ($uri, $body, $secret, %headers) = @_;

    $headers{'X-Webhook-Secret'} = "the $secret word" if $secret;

    return $t->request(POST => $uri, body => $body,
        headers => { 'Content-Type' => $type, %headers },
        port => $t->port(8443), ssl => { SSL_verify_mode => 0 });
}


sub arrived {
    my ($name, $hub, $device, %want) = @_;
    my (@messages) = $hub{$hub}->messages;

    is(scalar @messages, 1, "$name: one message") or return;
    is($messages[0]{device}, $device, "$name: its device");

    my ($send) = $hub{$hub}->journal(op => 'send', accepted => 1);

    is($send->{headers}{"iothub-app-$_"}, $want{$_}, "$name: $_")
        for sort keys %want;

    $hub{$hub}->forget;
}


sub nothing {
    my ($name) = @_;

    is($hub{$_}->journal, 0, "$name: $_ is not called") for sort keys %hub;
}


my %recipe = (

    'Particle, in front of an existing target' => sub {
        my $webhook = payload('particle', 'default form');
        my @as = ('particle', 'Content-Type' => $form);

        is(sent('/particle', $webhook, @as)->{status}, 200, 'Particle: 200');
        arrived('Particle', 'contoso', '3f002b000000000000000000');

        my ($got) = $target->take(1);

        is($got->{body}, $webhook, 'Particle: the target gets it');
        is($got->{headers}{'x-iothub-result'}, 'delivered',
           'Particle: and the result');

        is(sent('/particle', $webhook =~ s/coreid/id/r, @as)->{status}, 200,
           'Particle: what is rejected is no failure of the host');
        is(sent('/particle', $webhook)->{status}, 401,
           'Particle: nobody else comes in');
        nothing('Particle, refused');
        is(scalar $target->requests, 0, 'Particle: the target neither');
    },

    'ChirpStack' => sub {
        my @as = ('chirpstack');

        is(sent('/chirpstack?event=up', payload('chirpstack-v4', 'up'), @as)
           ->{status}, 204, 'ChirpStack');
        arrived('ChirpStack', 'contoso', '0101010101010101', event => 'up');

        is(sent('/chirpstack?event=status', payload('chirpstack-v4', 'status'),
                @as)->{status}, 204, 'ChirpStack: another event');
        is(sent('/chirpstack?event=up', payload('chirpstack-v4', 'up'))
           ->{status}, 401, 'ChirpStack: without the secret');
        nothing('ChirpStack, else');
    },

    'The Things Stack' => sub {
        my $webhook = payload('the-things-stack-v3', 'uplink_message');

        is(sent('/tts', $webhook, 'tts')->{status}, 204, 'The Things Stack');
        arrived('The Things Stack', 'contoso', 'app1.dev1',
                event => 'uplink_message');
        is(sent('/tts', $webhook)->{status}, 401,
           'The Things Stack: without the secret');
        nothing('The Things Stack, else');
    },

    'Event Grid' => sub {
        my $validation = payload('azure-eventgrid', 'SubscriptionValidation');
        my @first = ('aeg-event-type' => 'SubscriptionValidation');

        is(sent('/eventgrid', $validation, undef, @first)->{status}, 401,
           'Event Grid: a stranger gets no code');

        my $answer = sent('/eventgrid', $validation, 'eventgrid', @first);

        is($answer->{status}, 200, 'Event Grid: validated');
        is(decode_json($answer->{body})->{validationResponse},
           decode_json($validation)->[0]{data}{validationCode},
           'Event Grid: by its code');
        nothing('Event Grid, validation');

        my $webhook = payload('azure-eventgrid', 'DeviceTelemetry');
        my ($event) = @{ decode_json($webhook) };

        is(sent('/eventgrid', $webhook, 'eventgrid')->{status}, 204,
           'Event Grid');
        arrived('Event Grid', 'contoso', $event->{subject} =~ s{.*/}{}r,
                event => $event->{eventType});
    },

    'Two products, two hubs' => sub {
        my %of = (4711 => 'contoso', 4712 => 'fabrikam');

        for my $product (sort keys %of) {
            is(sent('/particle', qq({"event":"e","coreid":"d","data":"1",)
                    . qq("product":"$product"}), 'particle')->{status}, 204,
               "product $product");
            arrived("product $product", $of{$product}, 'd',
                    product => $product);
        }

        is(sent('/particle', '{"event":"e","coreid":"d","product":"9"}',
                'particle')->{status}, 503, 'another product');
        nothing('another product');
    },

    'Only so much from each sender' => sub {
        my @status = map {
            sent('/particle?device=d', '{"event":"e","coreid":"d"}',
                 'particle')->{status}
        } 1 .. 20;

        is($status[0], 204, 'one webhook');
        ok((grep { $_ == 429 } @status), 'too many of one device');
        is(sent('/particle?device=e', '{"event":"e","coreid":"e"}',
                'particle')->{status}, 204, 'another device');
    },

    'To retire a device' => sub {
        my @gone = map { "{\"event\":\"e\",\"coreid\":\"$_\"}" }
            qw(3f002b000000000000000000 3f002b000000000000000001);

        $hub{contoso}->remove('3f002b000000000000000000');
        is(sent('/particle', $gone[0], 'particle')->{status}, 200,
           'retired: no failure of the host');
        is(scalar $hub{contoso}->journal(op => 'create'), 0,
           'retired: not created again');
        is(sent('/particle', $gone[1], 'particle')->{status}, 204,
           'not retired');
        is(scalar $hub{contoso}->journal(op => 'create'), 1,
           'not retired: created');
    },

    'The same configuration' => sub {
        is(sent('/particle', payload('particle', 'default form'), 'particle',
                'Content-Type' => $form)->{status}, 204, 'migrated');

        my ($message) = $hub{contoso}->messages;

        is_deeply([ $message->{body} =~ /"(\w+)":/g ],
                  [qw(data device_id event published_at)],
                  'migrated: the members of the hosted integration');
        is(sent('/particle', '{}', 'particle')->{status}, 200,
           'migrated: what is rejected is no failure of the host');
    },

    'A template of your own' => sub {
        my $webhook = '{"id":"d","temperature":"21.50"}';

        is($t->request(POST => '/particle', body => $webhook,
               port => $t->port(8081), headers => {
                   'Content-Type' => $type,
                   'X-Webhook-Secret' => 'the particle word',
               })->{status}, 204, 'a template');
        is(($hub{contoso}->messages)[0]{body}, $webhook,
           'a template: it is the message');
        arrived('a template', 'contoso', 'd');
    },
);

for my $block (grep { $_->{lang} eq 'nginx' } map { blocks($_) } @recipes) {
    my $run = delete $recipe{$block->{heading}};

    ok($run, "$block->{heading}: a recipe that is tested") or next;

    $t->nginx(conf($block));
    $_->forget for values %hub, $target;
    $run->();
    $t->stop;
}

is(join(', ', sort keys %recipe), '', 'no recipe is missing');


# ---- what is typed

sub block {
    my ($name, $heading, $lang, $with) = @_;
    my ($block) = grep { $_->{heading} eq $heading && $_->{lang} eq $lang
                         && $_->{text} =~ ($with // qr/./) } blocks($name);

    ok($block, "$name, $heading: there") or return '';

    return $block->{text};
}


# Runs commands as they are written, but here: the output, and whether the
# last one succeeded.

sub typed {
    my ($text) = @_;
    my $dir = $t->dir;

    for ($text) {
        s{ -o root -g root}{}g if $> != 0;
        s{/etc/nginx/iothub}{$dir/typed}g;
        s{https://particle-hooks\.example\.com/}
         {'https://127.0.0.1:' . $t->port(8443) . '/'}gex;
        s{localhost:8081/}{'127.0.0.1:' . $t->port(8081) . '/'}ge;
    }

    $t->write_file('typed.sh', "editor() { cp $dir/contoso.key \"\$1\"; }\n"
                               . "cd $dir || exit\n$text");
    $t->write_file('.curlrc', "insecure\nno-progress-meter\n");

    my $output = `CURL_HOME=$dir bash -e $dir/typed.sh 2>&1`;

    return wantarray ? ($output, $?) : $output;
}


# README, from the key to the log

my @readme = ('README.md', '3. nginx.conf');
my $device = '0123456789abcdef01234567';
my ($output, $status) = typed(block('README.md', '2. The key file', 'sh'));

is($status, 0, 'README.md: the key file') or diag $output;
is((stat $t->dir . '/typed/contoso.key')[2] & 07777, 0600,
   'README.md: the mode of the key file');

(my $conf = here(block(@readme, 'nginx') =~ s{/etc/nginx/iothub/}
                                             {%%TESTDIR%%/typed/}gr))
    =~ s/\}\s*\z//;

$_->forget for values %hub;
$t->nginx($conf
    . here(block('README.md', '5. See what happens', 'nginx', qr/log_format/))
    . 'server { listen 127.0.0.1:%%PORT_8081%%; '
    . block('README.md', '5. See what happens', 'nginx', qr/iothub_status/)
    . ' } }');

$output = typed(block(@readme, 'sh'));
like($output, qr{^HTTP/\S+ 204}, 'README.md: curl is answered 204');
is(($hub{contoso}->messages)[0]{device}, $device, 'README.md: a message');

ok($t->wait_for_log(qr/^\S+ 127\.0\.0\.1 204 delivered device=$device (?x:
                       )event=test identity=CREATED hub=contoso (?x:
                       )calls=404, 200, 204 error=- tries=2 time=\d\.\d+ "-"$/,
                    file => 'iothub.log'), 'README.md: the log')
    or diag $t->read_file('iothub.log');

is($t->request(GET => $_, port => $t->port(8081))->{status}, 200,
   "README.md: $_") for qw(/iothub /iothub?health);
$t->stop;


# the log in JSON, whatever a webhook holds

my ($format) = block('doc/variables.md', 'A log format to copy', 'nginx');

unlink $t->dir . '/iothub.log';
$t->nginx(here($format) . others('') . ' server { '
          . 'listen 127.0.0.1:%%PORT_8081%%; iothub_secret off; '
          . 'location / { iothub_pass contoso; } }');

my @odd = ('{"coreid":"d","event":"a\"b\\\\\u00e9/","data":1}',
           '{"coreid":"\"\\n","event":"e"}', '{', '');

for my $body (@odd) {
    $t->request(POST => '/', body => $body, port => $t->port(8081),
                headers => { 'Content-Type' => $type });
}

$t->request(GET => '/%22?a=%ff', port => $t->port(8081));
ok($t->wait_for_log(qr/^\{.*\}$/, file => 'iothub.log', count => 5),
   'doc/variables.md: a line for each webhook');

my @lines = split /^/m, $t->read_file('iothub.log');
my @told = map { eval { decode_json($_) } // {} } @lines;

is(join(' ', map { $_->{result} // '?' } @told),
   'delivered rejected malformed malformed rejected',
   'doc/variables.md: each is JSON') or diag @lines;
$t->stop;


# monitoring

my @monitoring = ('doc/monitoring.md', 'Set up');

$t->nginx(here(block(@monitoring, 'nginx') =~ s/127\.0\.0\.1:8081/
                                                  127.0.0.1:%%PORT_8081%%/xr)
    =~ s/\}\s*\z//r . block('doc/monitoring.md', 'A load balancer', 'nginx')
    . '} ' . others(''));

my $page = eval { decode_json(scalar typed(block(@monitoring, 'sh'))) };

ok($page->{hubs}{contoso}, 'doc/monitoring.md: the status');
is((eval { decode_json(scalar typed(block('doc/monitoring.md', 'One device',
                                          'sh'))) } // {})->{identity},
   'unknown', 'doc/monitoring.md: one device');
is($t->request(GET => $_, port => $t->port(8081))->{status}, 200,
   "doc/monitoring.md: $_") for qw(/health?health /metrics);
$t->stop;


# the module, by hand

SKIP: {
    my $sources = '/usr/share/nginx/src/conf_flags';

    skip 'this is not about nginx of Debian', 2
        if $t->is_static || $ENV{IOTHUB_TEST_VALGRIND} || !-r $sources;

    my $folder = $t->dir . '/by-hand';
    my @build = ('README.md', 'Build and install', 'bash');

    mkdir $folder;
    system 'cp', '-R', (map { "$root/$_" }
                        qw(config src ngx_http_iothub_module.c)), $folder;
    ($output, $status) = typed("cd $folder\n" . block(@build));
    is($status, 0, 'README.md: the module is built') or diag $output;

    my ($exit, $said) = $t->nginx_t('http { }', no_module => 1, main =>
        "load_module $folder/build/manual/ngx_http_iothub_module.so;");

    is($exit, 0, 'README.md: nginx takes it') or diag $said;
}


# ---- JSON, commands, links

sub anchor { lc($_[0]) =~ s/[^\w\- ]//gr =~ s/ /-/gr }

my %anchors = map {
    my $name = $_;
    $name => { map { anchor($_) => 1 } slurp($name) =~ /^#+ (.*)/mg };
} @documents;

my $help = `$root/t/run --help`;

for my $name (@documents) {
    for my $block (blocks($name)) {
        my $where = "$name, line $block->{line}";

        if ($block->{lang} eq 'json') {
            ok(eval { JSON::PP->new->decode($block->{text}) },
               "$where: JSON");
        }

        next if $block->{lang} !~ /^(?:sh|bash)$/;

        open my $bash, '|-', 'bash -n' or die "bash: $!\n";
        print $bash $block->{text};
        ok(close $bash, "$where: commands");

        for my $command ($block->{text} =~ m{^\s*(\./\S+)}mg) {
            ok($command =~ m{^\./configure$} || -x "$root/$command",
               "$where: $command");
        }

        for my $option ($block->{text} =~ m{^\s*\./t/run.*?\s(--[\w-]+)}mg) {
            ok($help =~ /^\s+\Q$option\E\b/m,
               "$where: t/run has $option");
        }
    }

    for my $link (slurp($name) =~ m{\]\((?!https?:)([^)\s]+)\)}g) {
        my ($path, $anchor) = split /#/, $link, 2;
        my $file = $path eq '' ? $name
            : (($name =~ m{^(.*/)})[0] // '') . $path;

        1 while $file =~ s{[^/]+/\.\./}{};

        ok(-e "$root/$file", "$name: $link: the file");
        ok($anchors{$file}{$anchor}, "$name: $link: the heading")
            if defined $anchor;
    }
}



# ---- what the source has a name for

# Code without comments and characters, strings in one piece, white space as
# one blank.

sub code {
    my ($name) = @_;

    return slurp($name) =~ s{/\*.*?\*/}{}gsr =~ s/'\\?.'/0/gr
        =~ s/"\s*"//gr =~ s/\s+/ /gr;
}


# the first column of a document's tables

sub column {
    my ($name) = @_;

    return map { /`([^`]+)`/g } slurp($name) =~ /^\| ([^|]+) \|/mg;
}


my @rooms = map { split } code('config') =~ /ngx_iothub_rooms="([^"]*)"/;
my %room = map { $_ => code("src/ngx_http_iothub_$_.c") } @rooms;
my $module = code('ngx_http_iothub_module.c');

my %named = (
    'doc/directives.md' => [
        [ map { split /, / }
              slurp('doc/directives.md') =~ /^### ([a-z_, ]+)$/mg ],
        $module =~ /\{ ngx_string\("(iothub\w*)"\)/g,
        $room{hub} =~ /\{ ngx_string\("(\w+)"\), 1, \w+, ngx_http/g,
    ],
    'doc/variables.md' => [
        [ column('doc/variables.md') ],
        map { "\$$_" } $room{variables} =~ /ngx_string\("(iothub_\w+)"\)/g,
    ],
    'doc/answers.md' => [
        [ column('doc/answers.md') ],
        grep { $_ ne '-' } $room{outcome} =~ /\{ ngx_string\("([^"]+)"\)/g,
    ],
    'doc/design.md' => [ [ column('doc/design.md') ], @rooms ],
);

for my $name (sort keys %named) {
    my ($described, @names) = @{ $named{$name} };
    my %described = map { $_ => 1 } @$described;

    ok(@names > 3, "$name: names found in the source");
    ok($described{$_}, "$name: $_") for @names;
}

my %directive = map { $_ => 1 }
    @{ $named{'doc/directives.md'} }[1 .. $#{ $named{'doc/directives.md'} }];

ok($directive{$_}, "doc/directives.md: $_ exists")
    for grep { /^iothub/ } @{ $named{'doc/directives.md'}[0] };


# The reasons why an event is not delivered, and what else goes into the error
# log: the text before its first parameter, if it is long enough to be known.

my $reason = qr/(?: verdict\( (?!DONE) \w+ ,\s \w+ ,
                  | (?:detail|wh->reason)\s=
                  | _(?:end|credentials)\( d, (?:\sNGX_\w+,)?
                  | _result\( ctx, \sNGX_\w+,
                ) \s "((?:[^"\\]|\\.)+)"/x;
my $log = qr/(?: \bngx_log_error\(NGX_LOG_\w+,
               | _delivery_log\(d,
             ) [^"]+ "((?:[^"\\%]|\\.)+)/x;
my $operations = slurp('doc/operations.md') =~ s/\s+/ /gr;
my ($alarms) = $room{alarm} =~ /_alarm_texts\[\] = \{(.*?)\};/;
my %line = map { $_ => 1 } grep { length > 12 }
    map { s/\\"/"/gr =~ s/, hub: "$|,? in $| "?$//r }
    map({ (/$reason/g, /$log/g) } values %room),
    map { s/%.*//r } $alarms =~ /"((?:[^"\\]|\\.)*)"/g;

ok(keys %line > 60, 'lines of the log found in the source');
ok(index($operations, $_) >= 0, "doc/operations.md: $_") for sort keys %line;

$t->done;
