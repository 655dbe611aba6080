//! The Stream* lists: the unary list in messages that every client takes in.
//!
//! Owns: cutting a list into chunks. Must not: know what is in it. A client that goes away drops the stream and what is left of
//! the list.
use futures_util::stream;
use prost::Message;
use tonic::codegen::BoxStream;

/// Items are put into one message up to this size in bytes; the kubelet takes in 16 MiB.
const CHUNK: usize = 1 << 20;

/// A stream of these items in their order, each once, as messages that `wrap` makes. No items are no message: the end alone.
pub(crate) fn chunks<T, M>(items: Vec<T>, wrap: impl Fn(Vec<T>) -> M + Send + 'static) -> BoxStream<M>
where
    T: Message + Send + 'static,
    M: Send + 'static,
{
    let mut left = items.into_iter().peekable();
    let next = move || {
        let first = left.next()?;
        let mut size = first.encoded_len();
        let mut chunk = vec![first];
        while let Some(item) = left.next_if(|item| size + item.encoded_len() <= CHUNK) {
            size += item.encoded_len();
            chunk.push(item);
        }
        Some(Ok(wrap(chunk)))
    };
    Box::pin(stream::iter(std::iter::from_fn(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::cri::{Image, StreamImagesResponse};
    use futures_util::TryStreamExt;

    fn image(id: usize, size: usize) -> Image {
        Image { id: format!("{id:08}"), username: "x".repeat(size), ..Image::default() }
    }

    async fn streamed(images: Vec<Image>) -> Vec<StreamImagesResponse> {
        chunks(images, |images| StreamImagesResponse { images }).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn each_item_comes_once_in_messages_below_the_limit() {
        let all: Vec<Image> = (0..5000).map(|id| image(id, 1000)).collect();
        let messages = streamed(all.clone()).await;
        assert!(messages.len() > 4, "{}", messages.len());
        assert!(messages.iter().all(|m| m.encoded_len() < 2 * CHUNK));
        assert_eq!(messages.into_iter().flat_map(|m| m.images).collect::<Vec<_>>(), all);
    }

    #[tokio::test]
    async fn a_large_item_has_a_message_of_its_own_and_none_has_none() {
        let messages = streamed(vec![image(0, 10), image(1, 3 * CHUNK), image(2, 10)]).await;
        assert_eq!(messages.iter().map(|m| m.images.len()).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(streamed(Vec::new()).await, []);
    }
}
