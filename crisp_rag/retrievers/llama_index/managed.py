"""CrispVectorIndex: an index as a LlamaIndex index, documents in and query engines out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.indices.managed.base import BaseManagedIndex
from llama_index.core.ingestion import run_transformations
from llama_index.core.schema import BaseNode, Document, IndexNode, NodeRelationship, RelatedNodeInfo, TransformComponent
from llama_index.core.storage.docstore.types import RefDocInfo
from llama_index.core.storage.storage_context import StorageContext

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.index.types import Where
from crisp_rag.retrievers.gathering import in_thread
from crisp_rag.retrievers.llama_index.nodes import (
    node_from,
    passages_from_nodes,
    passages_of_sources,
    source_of,
    with_text,
)
from crisp_rag.retrievers.llama_index.retriever import CrispRetriever
from crisp_rag.retrievers.llama_index.vector_store import CrispVectorStore, refuse_unknown
from crisp_rag.retrievers.shared import over

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

_RETRIEVER_OPTIONS = ("similarity_top_k", "filters", "where", "node_ids", "doc_ids", "object_map", "verbose")


class CrispVectorIndex(BaseManagedIndex):
    """Documents in, retrievers and query engines out, over a :class:`CrispIndex` that is on disk at all times.

    The index itself is the record of what was ingested: which documents, with which hash, as which nodes.  There is
    no docstore to keep beside it and nothing to persist before the program ends.

    Args:
        index: Where the nodes lie.  This does not close it.
        where: A bound filter: nothing else is shown or touched.  What is inserted gets the values that it asks for
            where it has none.
        nodes: Nodes to insert now.
        objects: Index nodes to insert now, with the objects that they stand for.
        transformations: What turns documents into nodes; by default those of LlamaIndex's ``Settings``.
        callback_manager: Gets the events; by default the one of ``Settings``.
        show_progress: Draw progress bars on stderr.

    Raises:
        FilterError: for a malformed ``where``.
        InvalidInputError: for nodes that cannot be inserted.
    """

    index_struct_cls = IndexDict

    def __init__(
        self,
        index: CrispIndex,
        where: Where | None = None,
        *,
        nodes: Sequence[BaseNode] | None = None,
        objects: Sequence[IndexNode] | None = None,
        transformations: list[TransformComponent] | None = None,
        callback_manager: CallbackManager | None = None,
        show_progress: bool = False,
    ) -> None:
        store = CrispVectorStore(index, where)
        self._scope = store.scope
        super().__init__(
            index_struct=IndexDict(),
            storage_context=StorageContext.from_defaults(vector_store=store),
            transformations=transformations,
            callback_manager=callback_manager,
            show_progress=show_progress,
        )
        if nodes or objects:
            self.insert_nodes([*(nodes or ()), *(objects or ())])

    @classmethod
    def from_documents(  # type: ignore[override]
        cls,
        documents: Sequence[Document],
        storage_context: StorageContext | None = None,
        show_progress: bool = False,
        callback_manager: CallbackManager | None = None,
        transformations: list[TransformComponent] | None = None,
        *,
        path: str | Path | None = None,
        index: CrispIndex | None = None,
        encoder: Encoder | None = None,
        where: Where | None = None,
        exist_ok: bool = False,
    ) -> CrispVectorIndex:
        """Split documents, encode the nodes as one batch and add them in one commit.

        Args:
            documents: What to insert.
            storage_context: One with a :class:`CrispVectorStore`, whose index and filter are used.
            show_progress, callback_manager, transformations, where: As for the class.
            path: The index folder to make; with ``exist_ok`` it may be there already.
            index: An index that is open.
            encoder: For ``path``: what turns texts into vectors, None for the default one.
            exist_ok: Add to the index at ``path``.

        Raises:
            InvalidInputError: unless there is one place to keep the nodes: ``path``, ``index`` or
                ``storage_context``; or for a document that cannot be kept.
            IndexExistsError: if there is something at the path.
        """
        if sum(place is not None for place in (path, index, storage_context)) != 1:
            raise InvalidInputError("from_documents needs one of path, index and storage_context to keep the nodes in.")
        made = None
        if storage_context is not None:
            store = storage_context.vector_store
            if not isinstance(store, CrispVectorStore):
                raise InvalidInputError(f"The storage context's vector store is a {type(store).__name__}, not ours.")
            index, where = store.client, store.scope.narrowed(where)
        elif path is not None:
            index = made = CrispIndex.create(path, encoder, exist_ok=exist_ok)
        assert index is not None
        try:
            managed = cls(
                index,
                where,
                transformations=transformations,
                callback_manager=callback_manager,
                show_progress=show_progress,
            )
            with managed._callback_manager.as_trace("index_construction"):
                managed._replace(documents)
        except BaseException:
            if made is not None:
                made.close()
            raise
        return managed

    def persist(self, persist_dir: str | Path) -> None:
        """Copy the index to a folder for :meth:`load`; nothing to do where the index lies there.

        Raises:
            IndexExistsError: if there is anything but an older copy of this index.
            InvalidInputError: within a bound filter, because a copy has the whole index.
        """
        self._scope.copy_to(persist_dir)

    @classmethod
    def load(cls, persist_dir: str | Path, encoder: Encoder | None = None, **options: Any) -> CrispVectorIndex:
        """Open the index in a folder; ``options`` are arguments of the class."""
        return over(CrispIndex.open(persist_dir, encoder), lambda index: cls(index, **options))

    from_persist_dir = load

    @property
    def index(self) -> CrispIndex:
        """The index it keeps nodes in."""
        return self._scope.index

    @property
    def ref_doc_info(self) -> dict[str, RefDocInfo]:
        """Every source document, with the ids of its nodes."""
        found: dict[str, RefDocInfo] = {}
        for passage in self._scope.passages():
            source = source_of(passage)
            if source is not None:
                info = found.setdefault(source, RefDocInfo(metadata=_source_info(passage).metadata))
                info.node_ids.append(passage.id)
        return found

    # -- writing ------------------------------------------------------------------------------------------------

    def insert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """Insert nodes in one commit; a node whose id exists replaces it."""
        with self._callback_manager.as_trace("insert_nodes"):
            self._insert(nodes, **insert_kwargs)

    async def ainsert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """As :meth:`insert_nodes`."""
        await in_thread(self.insert_nodes, nodes, **insert_kwargs)

    def insert(self, document: Document, **insert_kwargs: Any) -> None:
        """Insert a document: split it and add its nodes in one commit."""
        with self._callback_manager.as_trace("insert"):
            self._replace([document], **insert_kwargs)

    async def ainsert(self, document: Document, **insert_kwargs: Any) -> None:
        """As :meth:`insert`."""
        await in_thread(self.insert, document, **insert_kwargs)

    def delete_nodes(self, node_ids: list[str], delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete nodes; ids that do not exist are passed over."""
        refuse_unknown(delete_kwargs)
        self._scope.delete(node_ids)

    async def adelete_nodes(self, node_ids: list[str], delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """As :meth:`delete_nodes`."""
        await in_thread(self.delete_nodes, node_ids, **delete_kwargs)

    def delete_ref_doc(self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document; one that does not exist is passed over."""
        refuse_unknown(delete_kwargs)
        self._scope.delete([passage.id for passage in passages_of_sources(self._scope, [ref_doc_id])])

    async def adelete_ref_doc(self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """As :meth:`delete_ref_doc`."""
        await in_thread(self.delete_ref_doc, ref_doc_id, **delete_kwargs)

    def update_ref_doc(self, document: Document, **update_kwargs: Any) -> None:
        """Put a document in the place of the one with its id, in one commit: no search sees neither or both."""
        with self._callback_manager.as_trace("update_ref_doc"):
            self._replace([document], [document.id_], **update_kwargs.get("insert_kwargs", {}))

    async def aupdate_ref_doc(self, document: Document, **update_kwargs: Any) -> None:
        """As :meth:`update_ref_doc`."""
        await in_thread(self.update_ref_doc, document, **update_kwargs)

    def refresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """Insert documents that are new and update those whose text or metadata changed, in one commit.

        Of several with the same id the last one stays.

        Returns:
            For each document, whether it is new or differs from what was there, or from the one before it.
        """
        with self._callback_manager.as_trace("refresh_ref_docs"):
            known = self._hashes([document.id_ for document in documents])
            changed: list[bool] = []
            written: dict[str, Document] = {}
            for document in documents:
                # A document that is kept in one piece has what the bound filter filled in.
                marked = document.model_copy(update={"metadata": self._scope.marked(document.metadata)})
                changed.append(known.get(document.id_) not in (document.hash, marked.hash))
                if changed[-1]:
                    known[document.id_] = document.hash
                    written[document.id_] = document
            self._replace([*written.values()], [*written], **update_kwargs.get("insert_kwargs", {}))
        return changed

    async def arefresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """As :meth:`refresh_ref_docs`."""
        return await in_thread(self.refresh_ref_docs, documents, **update_kwargs)

    def _replace(self, documents: Sequence[Document], sources: Sequence[str] = (), **options: Any) -> None:
        """Insert documents, and delete all nodes of those in ``sources``, in one commit."""
        nodes = run_transformations(documents, self._transformations, show_progress=self._show_progress, **options)
        self._insert(nodes, sources=sources)

    def _insert(self, nodes: Sequence[BaseNode], *, sources: Sequence[str] = (), **insert_kwargs: Any) -> None:
        passages = passages_from_nodes(with_text(nodes))

        def gone() -> list[str]:  # asked when nobody else can write: two updates at once would both stay otherwise
            return [passage.id for passage in passages_of_sources(self._scope, sources)]

        self._scope.add(passages, delete_ids=gone if sources else (), show_progress=self._show_progress)
        for node in nodes:
            if isinstance(node, IndexNode) and node.obj is not None:
                self._object_map[node.index_id] = node.obj

    def _delete_node(self, node_id: str, **delete_kwargs: Any) -> None:
        self._scope.delete([node_id])

    def _hashes(self, ids: Sequence[str]) -> dict[str, str | None]:
        """What LlamaIndex calls a document's hash, as it was when it was inserted, for those that are here."""
        found: dict[str, str | None] = {}
        for passage in passages_of_sources(self._scope, dict.fromkeys(ids)):
            source = source_of(passage)
            found[source or passage.id] = (_source_info(passage) if source else node_from(passage)).hash
        return found

    # -- reading ------------------------------------------------------------------------------------------------

    def as_retriever(self, **kwargs: Any) -> CrispRetriever:
        """A retriever within the bound filter.

        Args:
            kwargs: ``similarity_top_k``, ``filters``, ``where``, ``node_ids``, ``doc_ids``, ``object_map``,
                ``verbose``.  Options of the query and chat engines, which LlamaIndex passes to this too, are
                left to them.

        Raises:
            InvalidInputError: for an option that nobody knows.
        """
        unknown = sorted(set(kwargs) - set(_RETRIEVER_OPTIONS))
        if unknown and (unknown := sorted(set(unknown) - _engine_options())):
            allowed = ", ".join(_RETRIEVER_OPTIONS)
            raise InvalidInputError(f"Unknown options {', '.join(unknown)}. Allowed: {allowed}.")
        options = {name: kwargs[name] for name in _RETRIEVER_OPTIONS if name in kwargs}
        bound = CrispRetriever(
            self.index,
            options.pop("similarity_top_k", 10),
            where=self._scope.where,
            object_map={**self._object_map, **options.pop("object_map", {})},
            verbose=options.pop("verbose", False),
            callback_manager=kwargs.get("callback_manager") or self._callback_manager,
        )
        return bound.narrowed(**options)


def _source_info(passage: Passage) -> RelatedNodeInfo:
    found = node_from(passage).relationships.get(NodeRelationship.SOURCE)
    return found if isinstance(found, RelatedNodeInfo) else RelatedNodeInfo(node_id=str(source_of(passage)))


def _engine_options() -> set[str]:
    """The options of the engines that ``as_query_engine`` and ``as_chat_engine`` make."""
    from llama_index.core.chat_engine import (
        CondensePlusContextChatEngine,
        CondenseQuestionChatEngine,
        ContextChatEngine,
        SimpleChatEngine,
    )
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.response_synthesizers import get_response_synthesizer

    engines = (CondensePlusContextChatEngine, CondenseQuestionChatEngine, ContextChatEngine, SimpleChatEngine)
    makers: list[Callable[..., Any]] = [engine.from_defaults for engine in engines]
    makers += [RetrieverQueryEngine.from_args, get_response_synthesizer]
    parameters: list[Mapping[str, Any]] = [inspect.signature(maker).parameters for maker in makers]
    return {"callback_manager", *(name for names in parameters for name in names)} - {"kwargs"}
