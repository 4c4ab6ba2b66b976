package IoTHubTest::Fuzz;

# Answers of a hub that has lost its mind: real ones from a corpus, changed in
# their parts and in their bytes, and the ways in which they are written.
# Everything follows from a text (a seed and what is answered), so that it can
# be repeated.  Pure: no sockets here.

use strict;
use warnings;

use Carp qw(croak);
use Digest::MD5 qw(md5);
use Exporter qw(import);
use POSIX qw(strftime);

our @EXPORT_OK = qw(may_succeed show);

# of what is written without an end, in bytes and seconds
my ($ENDLESS, $PATIENCE) = (400_000, 1);

# These are a success for whoever reads them, if nothing was changed.
my %PLAIN = map { $_ => 1 } qw(send-204 send-204-bare send-204-vary
    send-204-http10 send-200-length send-200-empty send-201 send-202-chunked
    send-200-chunked-trailer);


# new(FOLDER): the corpus is the folder's files, OPERATION-STATUS-WHATEVER;
# the operation "any" is for all; "gate" and "quota", too, and rare, because a
# closed gate keeps its hub quiet for seconds or for a minute

sub new {
    my ($class, $folder) = @_;

    my %of;

    for my $path (sort glob "$folder/*") {
        my ($name, $op) = $path =~ m{/(([a-z]+)-[^/]+)\z}
            or croak "no operation in the name of $path";

        open my $f, '<:raw', $path or croak "$path: $!";
        local $/;

        push @{ $of{$op} }, _parts($name, scalar <$f>);
    }

    for my $op (qw(send put get any gate quota)) {
        croak "no $op-* in $folder" unless $of{$op};
    }

    # what makes a delivery go on: from a message to a creation, from there to
    # a question

    $of{'send on'} = [grep { $_->{name} =~ /404-format|401-no-device/ }
                      @{ $of{any} }];
    $of{'put on'} = [grep { $_->{name} =~ /409/ } @{ $of{put} }];
    $of{'get on'} = $of{get};

    $of{all} = [map { @{ $of{$_} } } qw(send put get any)];

    return bless \%of, $class;
}


sub _parts {
    my ($name, $bytes) = @_;

    my ($line, $fields, $body) =
        $bytes =~ m{\A(HTTP/[^\r\n]*)\r\n((?:[^\r\n]+\r\n)*)\r\n(.*)\z}s
        or return { name => $name, line => undef, fields => [],
                    body => $bytes };

    return { name => $name, line => $line,
             fields => [split /\r\n/, $fields], body => $body };
}


# ---- chance

# random(TEXT): a source of numbers that depend on the text only (xorshift)

sub random {
    my ($text) = @_;

    my $state = unpack('Q', md5($text)) | 1;

    return bless \$state, 'IoTHubTest::Fuzz::Random';
}


{
    package IoTHubTest::Fuzz::Random;

    sub below {
        my ($self, $n) = @_;

        $$self ^= $$self << 13;
        $$self ^= $$self >> 7;
        $$self ^= $$self << 17;

        return ($$self >> 11) % $n;
    }

    sub percent { $_[0]->below(10_000) < $_[1] * 100 }
    sub pick { my $self = shift; return $_[$self->below(scalar @_)] }

    sub bytes {
        my ($self, $n) = @_;

        return join '', map { chr $self->below(256) } 1 .. $n;
    }

    # weighed(WEIGHT => VALUE, ...)

    sub weighed {
        my ($self, @choices) = @_;

        my $whole = 0;

        $whole += $choices[2 * $_] for 0 .. @choices / 2 - 1;

        my $at = $self->below($whole);

        while (@choices > 2 && $at >= $choices[0]) {
            $at -= $choices[0];
            splice @choices, 0, 2;
        }

        return $choices[1];
    }
}


# ---- an answer

# answer(RANDOM, OPERATION): how to answer a send, put or get: a hash of
# C<steps>, a list of
#
#     [write => BYTES], [pause => SECONDS], ['close'], ['reset'], ['half'],
#     [endless => BYTES]
#
# after the last of which the connection is kept, unless a step has ended it;
# C<early> ("": once the request is there, "head": once its head is), C<names>
# of what was done, and C<plain>: it is a success beyond any doubt.

sub answer {
    my ($self, $random, $op) = @_;

    return $self->_strange($random, $op) if $random->percent(6);

    my $base = $self->_base($random, $op);
    my @names = ($base->{name});
    my %parts = (%$base, fields => [@{ $base->{fields} }], eol => "\r\n");

    my $changes = $random->weighed(35, 0, 40, 1, 15, 2, 10, 4);

    for (1 .. $changes) {
        last if $random->percent(35);

        push @names, $self->_change($random, \%parts);
    }

    my $bytes = _bytes(\%parts);

    if (@names - 1 < $changes) {
        ($bytes, my $name) = $self->_damage($random, $bytes);
        push @names, $name;
    }

    my ($steps, $early, $way) = _way($random, $bytes);

    return {
        steps => $steps, early => $early, names => [@names, $way],
        plain => $op eq 'send' && $PLAIN{ $base->{name} } && $changes == 0
                 && $way eq 'whole',
    };
}


sub _base {
    my ($self, $random, $op) = @_;

    my $set = $random->weighed(4000, $op, 3600, 'any', 800, "$op on",
                               600, 'all', 50, 'gate', 2, 'quota');

    return $random->pick(@{ $self->{$set} });
}


sub _bytes {
    my ($p) = @_;

    return $p->{body} unless defined $p->{line};

    return join $p->{eol}, $p->{line}, @{ $p->{fields} }, '', $p->{body};
}


sub _set_field {
    my ($p, $name, @values) = @_;

    @{ $p->{fields} } = ((grep { !/^\Q$name\E:/i } @{ $p->{fields} }),
                         map { "$name: $_" } @values);
}


sub _insert_field {
    my ($random, $p, @fields) = @_;

    splice @{ $p->{fields} }, $random->below(@{ $p->{fields} } + 1), 0,
        @fields;
}


# ---- changes of the parts

my @STATUSES = qw(000 099 100 101 102 103 199 200 200 201 202 203 204 204 205
    206 207 299 300 301 304 307 400 401 403 404 404 405 408 409 412 413 414
    415 422 431 451 499 500 501 502 503 504 505 507 599 600 999);

my @NUMBERS = ('', 'x', '1 2', '1, 1', qw(-1 +1 00 007 1e3 0x10 1.5 2147483647
    2147483648 4294967296 9223372036854775807 9223372036854775808
    18446744073709551615 18446744073709551616
    99999999999999999999999999999999));

my %CHANGES = (
    status => sub {
        my ($random, $p) = @_;
        my $status = $random->percent(90) ? $random->pick(@STATUSES)
            : $random->pick(qw(2 20 2040 20x 20.4 -20 2-4), '2 0 4', '');

        $p->{line} =~ s/ \S+/ $status/;
    },

    version => sub {
        my ($random, $p) = @_;
        my $version = $random->pick(qw(HTTP/1.0 HTTP/0.9 HTTP/2.0 HTTP/1.10
            HTTP/11.1 HTTP/1. HTTP/ HTTP http/1.1 HTTP/999.999 HTTP/1.1.1
            ICY SIP/2.0));

        $p->{line} =~ s/^\S+/$version/;
    },

    line => sub {
        my ($random, $p) = @_;

        $p->{line} = $random->pick("$p->{line}\0", "  $p->{line}",
            "\t$p->{line}", "\r\n$p->{line}", "$p->{line}" . ('x' x 5000),
            ($p->{line} =~ s/ /  /gr), ($p->{line} =~ s/ \D*\z//r),
            "GET / HTTP/1.1", '', ' ');
    },

    length => sub {
        my ($random, $p) = @_;
        my $true = length $p->{body};

        _set_field($p, 'Content-Length', $random->weighed(
            30, $true + 1 + $random->below(100),
            15, $random->below($true + 1),
            10, 0,
            30, $random->pick(@NUMBERS)));
    },

    'two lengths' => sub {
        my ($random, $p) = @_;
        my $true = length $p->{body};

        _set_field($p, 'Content-Length', $random->percent(50)
            ? ($true, $random->pick(0, $true, $true + 5, @NUMBERS))
            : ($random->pick(0, $true, $true + 5, @NUMBERS), $true));
    },

    'no length' => sub { _set_field($_[1], 'Content-Length') },

    chunks => sub {
        my ($random, $p) = @_;

        _set_field($p, 'Content-Length') if $random->percent(80);
        _set_field($p, 'Transfer-Encoding', $random->weighed(60, 'chunked',
            5, 'Chunked', 5, 'gzip, chunked', 5, 'chunked, gzip',
            5, 'chunked, chunked', 5, 'xchunked', 5, "chunked\0", 5, 'x'));
        $p->{body} = _chunks($random, $p->{body});
    },

    field => sub {
        my ($random, $p) = @_;
        my $fill = $random->pick(10, 300, 3900, 4096, 8200, 40_000);

        _insert_field($random, $p, $random->pick(
            'x' x $fill . ': a', 'x: ' . 'a' x $fill,
            (map { "x-$_: a" x ($_ % 3) } 1 .. 3),
            "x\0y: a", "x: a\0b", "\0", ': a', ':', 'no colon at all', ' x: a',
            "x : a", "x: a\r\n folded", "x: a\r\n\tfolded", "x: a\rb: c",
            "x: a\nb: c", "\xff\xfe: \x80", "x_y: a", "x: \x7f\e[2J",
            'Connection: close', 'Connection: keep-alive', 'Connection: x',
            'Connection: close, keep-alive', 'Upgrade: h2c',
            'Keep-Alive: timeout=0', 'Content-Encoding: gzip',
            'Content-Type: ' . 'a' x 300, 'Trailer: x',
            'X-Accel-Redirect: /', 'X-Accel-Buffering: yes',
            'Set-Cookie: ' . 'c' x 2000));
    },

    'many fields' => sub {
        my ($random, $p) = @_;

        _insert_field($random, $p, map { "x-$_: " . 'a' x $random->below(20) }
            1 .. $random->pick(20, 100, 1000, 3000));
    },

    'twice a field' => sub {
        my ($random, $p) = @_;

        _insert_field($random, $p, $random->pick(@{ $p->{fields} }))
            if @{ $p->{fields} };
    },

    'less fields' => sub {
        my ($random, $p) = @_;

        @{ $p->{fields} } = grep { $random->percent(50) } @{ $p->{fields} };
    },

    'retry-after' => sub {
        my ($random, $p) = @_;
        my $date = strftime('%a, %d %b %Y %H:%M:%S GMT',
                            gmtime(time + $random->below(3)));

        _insert_field($random, $p, map { "Retry-After: $_" }
            $random->weighed(8, 0, 6, 1, 6, $date, 3, " $date ", 3, "$date x",
                3, 'Sunday, 06-Nov-94 08:49:37 GMT',
                3, 'Sun Nov  6 08:49:37 1994',
                3, 'Tue, 31 Feb 2026 25:61:61 GMT',
                3, 'Fri, 31 Dec 9999 23:59:59 GMT',
                8, $random->pick(@NUMBERS)));
    },

    word => sub {
        my ($random, $p) = @_;

        _set_field($p, 'iothub-errorcode', $random->pick('DeviceNotFound',
            'DeviceAlreadyExists', 'RequestCanceled', 'IotHubFailingOver',
            'DeviceDisabled', '404001', '000000', '999999', 'x' x 3000,
            "Device\0NotFound", '"', "\xff", ''));
    },

    'request id' => sub {
        my ($random, $p) = @_;

        _set_field($p, 'x-ms-request-id', $random->pick('', 'x' x 64,
            'x' x 65, 'x' x 3000, "a\eb", 'a"b', 'a b', "\xe4"));
    },

    date => sub {
        my ($random, $p) = @_;

        _set_field($p, 'Date', $random->pick('', 'x', '0',
            'Thu, 01 Jan 1970 00:00:00 GMT', 'Fri, 31 Dec 9999 23:59:59 GMT',
            'Sun Nov  6 08:49:37 1994', 'Mon, 99 Foo 2026 10:00:00 GMT'));
    },

    body => sub {
        my ($random, $p) = @_;
        my $word = $random->pick('ErrorCode:', '\\"errorCode\\":', 'errorcode',
            '"status":"disabled"', '"status"', 'not contain', 'device');
        my $n = $random->pick(1, 10, 300, 2047, 2048, 2049, 5000, 100_000);

        $p->{body} = $random->pick($random->bytes(200), "\0" x $n, '[' x $n,
            '{"a":' x $n, "\\" x $n, '"' x $n, $word x (1 + $n / 20), $word,
            "{$word$word}", $p->{body} x 3, '');

        _set_field($p, 'Content-Length', length $p->{body})
            if $random->percent(70);
    },

    'line ends' => sub {
        my ($random, $p) = @_;

        $p->{eol} = $random->pick("\n", "\r", "\r\r\n", "\n\r", "\0\r\n");
    },
);

my @CHANGES = sort keys %CHANGES;


sub _change {
    my ($self, $random, $p) = @_;

    my $name = defined $p->{line} ? $random->pick(@CHANGES) : 'body';

    $CHANGES{$name}->($random, $p);

    return $name;
}


sub _chunks {
    my ($random, $body) = @_;

    my @pieces = map { sprintf "%x\r\n%s\r\n", length, $_ }
        $body =~ /.{1,${\ (1 + $random->below(300))}}/gs;
    my $last = "0\r\n\r\n";

    if ($random->percent(60)) {
        my $size = $random->pick(qw(-1 ffffffff 7fffffffffffffff
            8000000000000000 ffffffffffffffff 10000000000000000 0x5 5g g),
            '', ' 5', '5 ', '000005', '5;x', '5;x="' . 'y' x 5000 . '"',
            "5\0", '1' x 100, '00000000000000000000');
        my $bad = "$size\r\nhello\r\n";

        $last = $random->pick('', '0', "0\r", "0\r\n", "0\r\nx: y\r\n\r\n",
            "0\r\n" . "x: y\r\n" x 500 . "\r\n", "0\r\n" . 'x' x 5000
            . "\r\n\r\n", "0;x\r\n\r\n", "0\n\n", "00\r\n\r\n",
            "0\r\n\r\n0\r\n\r\n", "0\r\nx\0y\r\n\r\n", "-0\r\n\r\n")
            if $random->percent(50);

        splice @pieces, $random->below(@pieces + 1), 0, $bad
            if $random->percent(60);

        s/\r\n/\n/g for $random->percent(10) ? @pieces : ();
    }

    return join '', @pieces, $last;
}


# ---- changes of the bytes

sub _damage {
    my ($self, $random, $bytes) = @_;

    my $size = length $bytes;

    return $random->weighed(

        30, sub {
            my $n = 1 + $random->below(4);

            for (1 .. $n) {
                my $at = $random->below($size || 1);

                substr($bytes, $at, 1) =
                    chr(ord(substr $bytes, $at, 1)
                        ^ 1 << $random->below(8)) if $at < $size;
            }

            return ($bytes, "$n bits");
        },

        12, sub {
            substr($bytes, $random->below($size + 1), 0) =
                $random->percent(50) ? $random->bytes(1 + $random->below(8))
                : $random->pick("\r\n", "\r\n\r\n", "\n", "\0", ' ', ':');

            return ($bytes, 'bytes put in');
        },

        12, sub {
            substr($bytes, $random->below($size + 1),
                   1 + $random->below(12)) = '';

            return ($bytes, 'bytes cut out');
        },

        6, sub {
            my $at = $random->below($size + 1);

            substr($bytes, $at, 0) =
                substr $bytes, $at, 1 + $random->below(60);

            return ($bytes, 'bytes twice');
        },

        15, sub {
            return (substr($bytes, 0, $random->below($size + 1)), 'cut');
        },

        20, sub {
            my $next = _bytes({ %{ $random->pick(@{ $self->{all} }) },
                                eol => "\r\n" });

            $next = $random->pick($next, _ok(), _ok() x 20);

            return ($bytes . $next, 'and another answer');
        },

        8, sub {
            return ($bytes . $random->bytes(1 + $random->below(300)),
                    'and garbage');
        },

        10, sub {
            my $n = $random->pick(1, 2, 30, 500);
            my $status = $random->pick('100 Continue', '102 Processing',
                '103 Early Hints', '199 x', '101 Switching Protocols');

            return ("HTTP/1.1 $status\r\n\r\n" x $n . $bytes, "$n interims");
        },
    )->();
}


sub _ok { "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n" }


# ---- ways to write it

my %WAYS = (
    cut => sub {
        my ($random, $bytes) = @_;

        return [write => substr $bytes, 0, $random->below(1 + length $bytes)],
            $random->pick(['close'], ['reset'],
                          [pause => $random->pick(0.1, 0.4, $PATIENCE)]);
    },

    pieces => sub {
        my ($random, $bytes) = @_;

        return map { ([write => $_], [pause => 0.001 * $random->below(30)]) }
            _pieces($random, $bytes);
    },

    drops => sub {
        my ($random, $bytes) = @_;

        return map { [write => $_] } length $bytes < 1500
            ? split(//, $bytes) : $bytes =~ /.{1,1000}/gs;
    },

    late => sub {
        my ($random, $bytes) = @_;

        return [pause => 0.01 * $random->below(45)], [write => $bytes];
    },

    nothing => sub {
        my ($random, $bytes) = @_;

        return [pause => $random->pick(0.001, 0.1, 0.3, $PATIENCE)],
            $random->pick(['close'], ['reset'], [write => $bytes]);
    },
);


sub _way {
    my ($random, $bytes) = @_;

    my $early = $random->percent(3) ? 'head' : '';

    my $way = $random->weighed(70, 'whole', 10, 'cut', 7, 'pieces',
                               7, 'drops', 4, 'late', 3, 'nothing');

    my @steps = $way eq 'whole' ? [write => $bytes]
                                : $WAYS{$way}->($random, $bytes);

    my @end = @{ $random->weighed(
        80, [], 10, [['close']], 2, [['reset']], 2, [['half']],
        6, [[pause => 0.001 * $random->below(60)], ['close']]) };

    # what has no length ends with its connection, and a hub does not hang
    # for good

    @end = ['close']
        if !@end && (!@steps || $steps[-1][0] eq 'pause'
                     || $bytes !~ m{\AHTTP/1\.1\ 204
                                    |^content-length:|^transfer-enc}imx
                        && $random->percent(85));

    return ([@steps, @end], $early,
            join ', ', ($early || ()), $way, @end ? "then $end[-1][0]" : ());
}


sub _pieces {
    my ($random, $bytes) = @_;

    my @pieces;

    for (1 .. 1 + $random->below(4)) {
        last if $bytes eq '';

        push @pieces, substr $bytes, 0, 1 + $random->below(length $bytes), '';
    }

    return (@pieces, $bytes eq '' ? () : $bytes);
}


# What is no answer at all, or has no end.  What has none ends in a reset:
# otherwise a body until the end would be there as a whole.

sub _strange {
    my ($self, $random, $op) = @_;

    my ($name, @steps) = @{ $random->weighed(
        15, ['endless head',
             [write => "HTTP/1.1 204 No Content\r\n"],
             [endless => $random->pick("x: y\r\n", 'x', "x: y\n", "\0",
                                       ' ')]],
        15, ['endless body',
             [write => "HTTP/1.1 " . $random->pick(200, 500, 404)
                 . " OK\r\n\r\n"],
             [endless => $random->pick('x' x 1000, '{"ErrorCode:' x 100)]],
        15, ['endless chunks',
             [write => "HTTP/1.1 " . $random->pick(200, 503)
                 . " OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
             [endless => $random->pick("1\r\nx\r\n", "5;x=y\r\nhello\r\n",
                                       '0', "0\r\nx: y\r\n",
                                       "3e8\r\n" . 'x' x 1000 . "\r\n")]],
        10, ['endless interims',
             [endless => "HTTP/1.1 100 Continue\r\n\r\n"]],
        10, ['endless answers', [endless => _ok()]],
        8, ['endless noise', [endless => $random->bytes(500)]],
        6, ['endless line', [write => 'HTTP/1.1 204 '], [endless => 'x']],
        20, ['close'], 20, ['reset'],
        10, ['half', ['half'], [pause => 0.3]],
        5, ['nothing', [pause => 0.3]],
    ) };

    push @steps, $name eq 'close' ? ['close'] : ['reset'];

    # the smuggler's classics: what is left over is a success
    if ($random->percent(25)) {
        my $bad = $random->pick('500 x', '503 x', '404 x', '429 x');

        ($name, @steps) = ('smuggled', [write => $random->pick(
            "HTTP/1.1 $bad\r\nContent-Length: 0\r\n\r\n" . _ok(),
            "HTTP/1.1 $bad\r\nContent-Length: 5\r\n\r\nhello" . _ok(),
            "HTTP/1.1 $bad\r\nContent-Length: 0\r\n"
                . "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" . _ok(),
            "HTTP/1.1 $bad\r\nTransfer-Encoding: chunked\r\n\r\n"
                . "5\r\nhello\r\n0\r\n\r\n" . _ok(),
            "HTTP/1.1 $bad\r\nContent-Length: 0\r\nContent-Length: 51\r\n\r\n"
                . _ok(),
            "HTTP/1.1 $bad\r\nx: y\r\n\n" . _ok(),
            "HTTP/1.1 304 x\r\nContent-Length: 51\r\n\r\n" . _ok())]);
    }

    return { steps => \@steps, early => $random->percent(20) ? 'head' : '',
             names => ["strange: $name"], plain => 0 };
}


sub endless_limit { $ENDLESS }
sub patience { $PATIENCE }


# ---- reading

# may_succeed(BYTES, ENDED): may the first answer in BYTES be taken for a whole
# success?  ENDED: they were followed by a proper end of the connection.  As
# lenient as any nginx: what is "no" here must not be taken for one.

sub may_succeed {
    my ($bytes, $ended) = @_;

    my ($status, $fields);

    # nginx takes an interim answer for the last one, newer ones skip some

    do {
        $bytes =~ s{\A(?i:HTTP)/\d+\.\d+\ [ ]*(\d)\ *(\d)\ *(\d)
                    (?:[ .][^\r\n]*)?\r*\n
                    ((?:[^\n]*\n)*?)\r*\n}{}x
            or return 0;

        ($status, $fields) = ("$1$2$3", $4);

    } while ($status < 200);

    return 1 if $status == 204;
    return 0 unless $status =~ /\A20[012]\z/;

    return _chunks_end($bytes)
        if $fields =~ /^transfer-encoding[ \t]*:[^\n]*chunked/im;

    my @lengths = $fields =~ /^content-length[ \t]*:[ \t]*([^\r\n]*)/img;

    return 1 if $ended && (!@lengths || grep { !/\A\d{1,18}\s*\z/ } @lengths);

    return scalar grep { /\A(\d{1,18})\s*\z/ && length $bytes >= $1 }
        @lengths;
}


sub _chunks_end {
    my ($bytes) = @_;

    pos($bytes) = 0;

    my $size = qr/0*([1-9a-fA-F][0-9a-fA-F]{0,7})/;

    while ($bytes =~ /\G$size(?:[; \t][^\n]*)?\r?\n/gc) {
        my $end = pos($bytes) + hex $1;

        return 0 if $end > length $bytes;

        pos($bytes) = $end;
        $bytes =~ /\G\r?\n/gc or return 0;
    }

    return $bytes =~ /\G0+(?:[; \t][^\n]*)?\r?\n(?:[^\r\n][^\n]*\n)*\r?\n/gc
        ? 1 : 0;
}


# show(BYTES): as text for a person, which Perl can read

sub show {
    my ($bytes) = @_;

    my $size = length $bytes;
    my $text = substr $bytes, 0, 3000;

    $text =~ s/(["\\\$\@])/\\$1/g;
    $text =~ s/([^ -~])/$1 eq "\r" ? '\r' : $1 eq "\n" ? '\n'
                        : sprintf '\x{%02x}', ord $1/ge;
    $text =~ s/((.)\2{59,})/'" . "' . $2 . '" x ' . length($1) . ' . "'/ge;

    return "\"$text\"" . ($size > 3000 ? " (3000 of $size bytes)" : '');
}


1;
